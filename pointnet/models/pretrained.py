"""The base class of the models, each built from plain arguments, and the model folder that it is kept in.

`config.json` says how to rebuild the model; `model.safetensors` is its state dict, with a sha256 of the tensors in its
header, since safetensors itself does not notice a flipped bit. In a folder that is meant to be shared, `config.json`
also has the sha256 of the whole weights file.
"""

import functools
import hashlib
import inspect
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from pointnet.files import AnyPath, write_atomically
from pointnet.names import did_you_mean, did_you_mean_path

M = TypeVar("M", bound="Pretrained")
MODELS: dict[str, type[Any]] = {}  # the subclasses of `Pretrained` that have a name, by it
WEIGHTS = Path(__file__).parent / "weights"  # a model folder for each name of shipped weights
# Those that predict where no model is named, by task.
DEFAULTS = {"classification": "pointnet_modelnet40", "part": "pointnet_shapes_part"}
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
Plain = Mapping[str, Any]  # what JSON can hold
# What else may be there, by how it begins: what torch.save and pickle write, what a clone without Git LFS has.
OTHER_KINDS = {
    rb"PK|\x80[\x02-\x05]": "a pickle, which may hold code and is not opened; see python -m pointnet convert",
    rb"version https://git-lfs": "a pointer of Git LFS, not the weights themselves; git lfs pull fetches them",
}


class Pretrained(nn.Module):
    """A network that knows the names of its classes and can be saved with all it takes to rebuild and use it.

    A subclass that is defined with a name can be saved and loaded: `class Net(Pretrained, name="net")`.

    `classes` and `preprocessing` are empty until `load_model` fills them in: the names of the logits, and what the
    weights expect of points. `arguments` are those of the constructor, defaults included, sequences as lists.
    """

    model_name: ClassVar[str] = ""  # in `MODELS`
    scores_each_point: ClassVar[bool] = False  # logits (B, num_outputs, N) in place of (B, num_outputs)
    classes: tuple[str, ...] = ()
    preprocessing: dict[str, Any]
    arguments: dict[str, Any]

    def __init_subclass__(cls, name: str = "") -> None:
        super().__init_subclass__()
        cls.model_name = name  # not inherited: a subclass may be another network
        if name:
            MODELS[name] = cls
        if "__init__" in vars(cls):
            cls.__init__ = _recording(cls.__init__)  # type: ignore[method-assign]

    def __init__(self) -> None:
        super().__init__()
        self.preprocessing = {}

    @property
    def num_outputs(self) -> int:
        """The number of logits of a cloud, or of each point."""
        raise NotImplementedError

    def save_pretrained(self, folder: AnyPath, half: bool = False, notes: str = "") -> None:
        """Writes a model folder: `model.safetensors`, `config.json` with its sha256, and a model card, `README.md`.

        `load_model` and `from_pretrained` read it; `hf upload NAME FOLDER` shares it.

        Args:
            half: matrices are stored in half precision, which halves the file; vectors (biases, norms) stay float32.
            notes: Markdown for the model card: what it was trained on, what it reached, its licence. A card that is
                already there is kept.

        Raises:
            ValueError: a network that its arguments do not rebuild (folded, or changed by hand), or that lacks names
                for its classes or `preprocessing["num_points"]`; weights too large for half precision.
            OSError: the folder cannot be written.
        """
        folder = Path(folder)
        state = {key: x.half() if half and x.dim() > 1 else x for key, x in self.state_dict().items()}
        too_large = half and not all(bool(tensor.isfinite().all()) for tensor in state.values())
        if reason := _why_not_rebuilt(self) or (too_large and "its weights are too large for half precision"):
            raise ValueError(f"{folder}: not written: {reason}")
        folder.mkdir(parents=True, exist_ok=True)
        sha256 = save_weights(folder, state)
        if not (folder / "README.md").exists():
            write_atomically(folder / "README.md", _model_card(self, notes).encode())
        # Last: a folder without it holds no model, and one of an older model does not match the new
        save_config(folder, self.model_name, self.arguments, self.classes, self.preprocessing, sha256)

    @classmethod
    def from_pretrained(cls: type[M], name: AnyPath, revision: str | None = None) -> M:
        """The model of a folder, of shipped weights, or of the Hugging Face Hub; in eval mode, on the CPU.

        Args:
            name: a folder, a name that `load_model` knows, or else `owner/name` on the Hub, which is downloaded once
                to the Hub's own cache.
            revision: a branch, tag or commit on the Hub.

        Raises:
            ValueError: no such model, one of another class, or damaged; the message names it.
            ImportError: it would have to come from the Hub, and the extra `hub` is not installed.
        """
        model = load_folder(name, hub=True, revision=revision)
        if not isinstance(model, cls):
            raise ValueError(f"{os.fspath(name)}: holds a {type(model).__name__}, not a {cls.__name__}")
        return model


def load_folder(name: AnyPath, hub: bool = False, revision: str | None = None) -> Any:
    """As `load_model`; with `hub` also from the Hugging Face Hub, as `Pretrained.from_pretrained`."""
    folder = find_folder(name, hub, revision)
    config = read_config(folder)
    state = read_weights(folder, config.get("sha256"))
    try:
        model = _build(config["model"], config["arguments"])
        model.classes, model.preprocessing = tuple(config["classes"]), dict(config["preprocessing"])
        if reason := _undescribed(model):
            raise ValueError(reason)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        path = folder / CONFIG_FILE
        raise ValueError(f"{path}: does not describe a model of this library: {said}") from error
    if reason := misfit(state, model.state_dict()):
        path = folder / WEIGHTS_FILE
        raise ValueError(f"{path}: does not fit the model in {CONFIG_FILE}: {reason}")
    model.load_state_dict(state, assign=True)
    return model.eval()


def _recording(init: Callable[..., None]) -> Callable[..., None]:
    """`init` of a subclass, which then keeps its arguments; the outermost of several is the last, so it wins."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def recording(self: Pretrained, *given: Any, **named: Any) -> None:
        init(self, *given, **named)
        bound = signature.bind(self, *given, **named)
        bound.apply_defaults()
        self.arguments = {name: _plain(value) for name, value in list(bound.arguments.items())[1:]}

    return recording


def _plain(value: Any) -> Any:
    """As JSON gives it back: sequences, inner ones too, as lists of their own."""
    return [_plain(each) for each in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def _build(name: str, arguments: Mapping[str, Any]) -> Pretrained:
    """The network, without memory for its numbers and without drawing any."""
    if name not in list(MODELS):  # of a list, since what a config holds may not be hashable
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {name!r}")
    with torch.device("meta"):
        return MODELS[name](**arguments)


def _why_not_rebuilt(model: Pretrained) -> str:
    """Why a model folder would not give this model back; empty where it would."""
    if not model.model_name:
        return f"{type(model).__name__} is not one of {', '.join(MODELS)}"
    # What is kept under an argument's name must still be that argument; the modules show in the repr.
    kept = {name: _plain(getattr(model, name, value)) for name, value in model.arguments.items()}
    if kept != model.arguments or repr(_build(model.model_name, model.arguments)) != repr(model):
        return "the model is not as its arguments make it (folded, or changed)"
    return _undescribed(model)


def _undescribed(model: Pretrained) -> str:
    """What is wrong with the model's classes or `num_points`; empty where nothing is."""
    count, names = model.num_outputs, {name for name in model.classes if isinstance(name, str)}
    if not len(model.classes) == len(names) == count:
        return f"classes must name its {count} classes, each once, got {len(names)} names"
    num_points = model.preprocessing.get("num_points")
    if type(num_points) is not int or num_points < 1:
        return f"num_points in preprocessing must be an integer above 0, points per cloud, got {num_points!r}"
    return ""


def _model_card(model: Pretrained, notes: str) -> str:
    """A model card in the Hugging Face Hub's layout: YAML between two lines of dashes, then Markdown."""
    kind, channels = type(model).__name__, model.arguments["in_channels"]
    scores = f"(B, {model.num_outputs}, N)" if model.scores_each_point else f"(B, {model.num_outputs})"
    expected = "\n".join(f"- {name}: {value}" for name, value in model.preprocessing.items())
    card = f"""---
library_name: pointnet-shared-mlp
tags:
- point-cloud
- pointnet
- 3d
---

# {kind}, {len(model.classes)} classes

PointNet (Qi, Su, Mo, Guibas, CVPR 2017) with {sum(p.numel() for p in model.parameters()):,} parameters.

```python
from pointnet import {kind}

model = {kind}.from_pretrained("...")  # this folder, or its name on the Hub
logits = model(points)  # (B, {channels}, N) float32 -> {scores}
```

It expects of points:

{expected}

Its classes, in the order of the logits: {", ".join(model.classes)}.
"""
    return f"{card}\n{notes}\n" if notes else card


def shipped() -> list[str]:
    """The names of the weights that come with the library."""
    return sorted(config.parent.name for config in WEIGHTS.glob(f"*/{CONFIG_FILE}"))


def find_folder(name: AnyPath, hub: bool = False, revision: str | None = None) -> Path:
    """The model folder of this path, else of these shipped weights, else, with `hub`, of `owner/name` on the Hub."""
    folder, name = Path(name), os.fspath(name)
    found = os.path.exists(folder)
    if not found and name in shipped():
        return WEIGHTS / name
    if not found and hub and re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return _fetch(name, revision)
    if not os.path.isfile(folder / CONFIG_FILE):
        names = ", ".join(shipped()) or "none"
        wanted = f"a run folder holds {CONFIG_FILE} and {WEIGHTS_FILE}; shipped weights: {names}"
        near = "" if found else did_you_mean(name, shipped()) or did_you_mean_path(folder)
        raise ValueError(f"{folder / CONFIG_FILE}: no model here; {wanted}{near}")
    return folder


def _fetch(name: str, revision: str | None) -> Path:
    """The folder in the Hub's own cache that `owner/name` was downloaded to."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        wanted = "the Hugging Face Hub needs huggingface_hub: pip install 'pointnet-shared-mlp[hub]'"
        raise ImportError(f"{name}: no such folder, and {wanted}") from error
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE]))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{name}: no such folder, and not available from the Hugging Face Hub: {reason}") from error


def save_config(
    folder: AnyPath,
    model: str,
    arguments: Plain,
    classes: Sequence[str],
    preprocessing: Plain,
    sha256: str | None = None,
) -> None:
    """Writes `config.json`: the model's name in `MODELS`, its arguments, its classes, what it expects of points, and
    the sha256 of its weights file if it is given."""
    config = {"model": model, "arguments": {**arguments}, "classes": [*classes], "preprocessing": {**preprocessing}}
    config |= {} if sha256 is None else {"sha256": sha256}
    write_atomically(Path(folder) / CONFIG_FILE, json.dumps(config, indent=2).encode())


def read_config(folder: Path) -> dict[str, Any]:
    """What `save_config` wrote. ValueError, which names the file, for anything but a JSON object."""
    path = folder / CONFIG_FILE
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: not a model's config: {error}") from error


def save_weights(folder: AnyPath, state: Mapping[str, Tensor]) -> str:
    """Writes `model.safetensors` from a state dict; -> the file's sha256."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    content = save(tensors, {"sha256": digest(tensors)})
    write_atomically(Path(folder) / WEIGHTS_FILE, content)
    return hashlib.sha256(content).hexdigest()


def read_weights(folder: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """What `save_weights` wrote, in float32. ValueError, which names the file, for anything else or another sha256."""
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS_FILE
    content = b""
    try:
        content = path.read_bytes()
        with safe_open(path, framework="pt") as file:
            # Copied, since the file may change under a view of it.
            state = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            stored = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError) as error:
        reason = f"not a readable safetensors file: {getattr(error, 'strerror', None) or error}"
        reason = next((kind for start, kind in OTHER_KINDS.items() if re.match(start, content)), reason)
        raise ValueError(f"{path}: {reason}") from error
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path}: damaged: it does not match the sha256 in {CONFIG_FILE}")
    if stored is None:
        raise ValueError(f"{path}: not written by this library: there is no sha256 in its header")
    if stored != digest(state):
        raise ValueError(f"{path}: damaged: its content does not match the sha256 stored with it")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A sha256 of the names, dtypes, shapes and bytes of tensors."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def misfit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """The first reason why `state` is no state of a model with the tensors `wanted`; empty where there is none."""
    for name, tensor in wanted.items():
        got = state.get(name)
        if got is None:
            return f"there is no {name}"
        if (got.shape, got.is_floating_point()) != (tensor.shape, tensor.is_floating_point()):
            return f"{name} must be {tuple(tensor.shape)} {tensor.dtype}, got {tuple(got.shape)} {got.dtype}"
        if not got.isfinite().all():
            return f"{name} holds numbers that are not finite"
    return next((f"it has no {name}" for name in state if name not in wanted), "")
