"""Models by name, and what they have learned: to a folder and back.

A model folder holds `config.json` (how to rebuild the model) and `model.safetensors` (its state, with a sha256 of it
in the header: safetensors itself does not notice a flipped bit). One that is meant to be shared also holds a model
card, `README.md`, and its `config.json` the sha256 of the whole weights file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pointnet.files import write_atomically
from pointnet.names import did_you_mean, did_you_mean_path

from .pointnet import PointNetClassifier, PointNetModel
from .pretrained import Pretrained
from .segmentation import PointNetPartSegmenter, PointNetSegmenter

MODELS: dict[str, type[PointNetModel]] = {
    "pointnet": PointNetClassifier,
    "pointnet_part": PointNetPartSegmenter,
    "pointnet_scene": PointNetSegmenter,
}
WEIGHTS = Path(__file__).parent / "weights"  # a model folder for each name of shipped weights
DEFAULT = "pointnet_modelnet40"  # of those, what predicts where nobody says which
DEFAULTS = {"classification": DEFAULT, "part": "pointnet_shapes_part"}  # likewise, by task
LFS = b"version https://git-lfs"  # how a clone without Git LFS has a large file
PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # how files of torch.save and pickle begin


def shipped() -> list[str]:
    """The names of the weights that come with the library."""
    return sorted(config.parent.name for config in WEIGHTS.glob("*/config.json"))


# To a folder.


def save_model(model: Pretrained, folder: str | os.PathLike[str], half: bool = False, notes: str = "") -> None:
    """What `Pretrained.save_pretrained` does."""
    folder = Path(folder)
    name = next((name for name, kind in MODELS.items() if kind is type(model)), None)
    if name is None:
        raise ValueError(f"{folder}: not written: {type(model).__name__} is not one of {', '.join(MODELS)}")
    if repr(_build(name, model.arguments)) != repr(model):
        raise ValueError(f"{folder}: not written: the model is not as its arguments make it (folded, or changed)")
    try:
        _check_described(model)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder}: not written: {error}") from error
    state = {key: tensor.half() if half and tensor.dim() > 1 else tensor for key, tensor in model.state_dict().items()}
    if half and not all(bool(tensor.isfinite().all()) for tensor in state.values()):
        raise ValueError(f"{folder}: not written: its weights are too large for half precision")
    folder.mkdir(parents=True, exist_ok=True)
    digest = save_weights(folder, state)
    if not (folder / "README.md").exists():
        write_atomically(folder / "README.md", _model_card(model, notes).encode())
    # Last: a folder without it holds no model, and one of an older model does not match the new weights.
    save_config(folder, name, model.arguments, model.classes, model.preprocessing, digest)


def save_config(
    folder: str | os.PathLike[str],
    model: str,
    arguments: Mapping[str, Any],
    classes: Sequence[str],
    preprocessing: Mapping[str, Any],
    sha256: str | None = None,
) -> None:
    """Writes `config.json`: the model's name in `MODELS`, its arguments, its classes, what it expects of points, and
    the sha256 of its weights file if it is given."""
    config = {
        "model": model,
        "arguments": dict(arguments),
        "classes": list(classes),
        "preprocessing": dict(preprocessing),
        **({} if sha256 is None else {"sha256": sha256}),
    }
    write_atomically(Path(folder) / "config.json", json.dumps(config, indent=2).encode())


def save_weights(folder: str | os.PathLike[str], state: Mapping[str, Tensor]) -> str:
    """Writes `model.safetensors` from a state dict; -> the file's sha256."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    content = save(tensors, {"sha256": _digest(tensors)})
    write_atomically(Path(folder) / "model.safetensors", content)
    return hashlib.sha256(content).hexdigest()


def _model_card(model: Pretrained, notes: str) -> str:
    """A model card in the Hugging Face Hub's layout: YAML between two lines of dashes, then Markdown."""
    kind, channels = type(model).__name__, model.arguments["in_channels"]
    scores = f"(B, {model.num_outputs})" if isinstance(model, PointNetClassifier) else f"(B, {model.num_outputs}, N)"
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


# And back.


def fetch_model(name: str, revision: str | None = None) -> str:
    """What `load_model` takes for this name: itself, or the folder that `owner/name` of the Hub was fetched to."""
    if Path(name).exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return name
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        wanted = "the Hugging Face Hub needs huggingface_hub: pip install 'pointnet-shared-mlp[hub]'"
        raise ImportError(f"{name}: no such folder, and {wanted}") from error
    try:
        return snapshot_download(name, revision=revision, allow_patterns=["config.json", "model.safetensors"])
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{name}: no such folder, and not to be had from the Hugging Face Hub: {reason}") from error


def load_model(path: str | os.PathLike[str]) -> PointNetModel:
    """The model of a run folder, or of shipped weights by their name; in eval mode, in float32, on the CPU.

    It has `.classes`, a tuple of names in the order of its logits, and `.preprocessing`, what it expects of points.

    Raises:
        ValueError: the folder holds no model, or a file of it is damaged; the message names the file.
    """
    folder = Path(path)
    if os.fspath(path) in shipped() and not folder.exists():
        folder = WEIGHTS / folder
    config = _read_config(folder / "config.json")
    state = _read_weights(folder / "model.safetensors", config.get("sha256"))
    try:
        model = _build(config["model"], config["arguments"])
        model.classes = tuple(config["classes"])
        model.preprocessing = dict(config["preprocessing"])
        _check_described(model)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        reason = f"does not describe a model of this library: {said}"
        raise ValueError(f"{folder / 'config.json'}: {reason}") from error
    if misfit := _misfit(state, model.state_dict()):
        reason = f"does not fit the model in config.json: {misfit}"
        raise ValueError(f"{folder / 'model.safetensors'}: {reason}")
    model.load_state_dict(state, assign=True)
    return model.eval()


def _build(name: str, arguments: Mapping[str, Any]) -> PointNetModel:
    """The network, without memory for its numbers and without drawing any."""
    if name not in list(MODELS):
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {name!r}")
    with torch.device("meta"):
        return MODELS[name](**arguments)


def _misfit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """The first that keeps a state from being that of a model with these tensors; empty where nothing does."""
    for name, tensor in wanted.items():
        got = state.get(name)
        if got is None:
            return f"there is no {name}"
        if (got.shape, got.is_floating_point()) != (tensor.shape, tensor.is_floating_point()):
            return f"{name} must be {tuple(tensor.shape)} {tensor.dtype}, got {tuple(got.shape)} {got.dtype}"
        if not got.isfinite().all():
            return f"{name} holds numbers that are not finite"
    return next((f"it has no {name}" for name in state if name not in wanted), "")


def _check_described(model: Pretrained) -> None:
    count, names = model.num_outputs, {name for name in model.classes if isinstance(name, str)}
    if not len(model.classes) == len(names) == count:
        raise TypeError(f"classes must name its {count} classes, each once, got {len(names)} names")
    num_points = model.preprocessing.get("num_points")
    if type(num_points) is not int or num_points < 1:
        raise TypeError(f"num_points must be an integer above 0, points a cloud, in preprocessing, got {num_points!r}")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        wanted = "a run folder holds config.json and model.safetensors; shipped weights: "
        folder = path.parent
        near = "" if folder.exists() else did_you_mean(str(folder), shipped()) or did_you_mean_path(folder)
        raise ValueError(f"{path}: no model here; {wanted}{', '.join(shipped()) or 'none'}{near}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: not a model's config: {error}") from error


def _read_weights(path: Path, sha256: str | None) -> dict[str, Tensor]:
    """A state dict, in float32, held to the sha256 in its header and to that of the file, where it is known."""
    from safetensors import SafetensorError, safe_open

    try:
        content = path.read_bytes()
        with safe_open(path, framework="pt") as file:
            # Copied, since the file may change under a view of it.
            state = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            stored = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError) as error:
        reason = f"not a readable safetensors file: {getattr(error, 'strerror', None) or error}"
        if isinstance(error, SafetensorError) and content.startswith(PICKLES):
            reason = "a pickle, which may hold code and is not opened; see python -m pointnet convert"
        if isinstance(error, SafetensorError) and content.startswith(LFS):
            reason = "a pointer of Git LFS, not the weights themselves; git lfs pull fetches them"
        raise ValueError(f"{path}: {reason}") from error
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path}: damaged: it does not match the sha256 in config.json")
    if stored is None:
        raise ValueError(f"{path}: not written by this library: there is no sha256 in its header")
    if stored != _digest(state):
        raise ValueError(f"{path}: damaged: its content does not match the sha256 stored with it")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
