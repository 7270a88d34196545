"""Model folders: where the one of a name is, and the two files it holds. Nothing here knows a class of model.

`config.json` says how to rebuild the model; `model.safetensors` is its state dict, with a sha256 of the tensors in its
header, since safetensors itself does not notice a flipped bit. In a folder that is meant to be shared, `config.json`
also has the sha256 of the whole weights file.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pointnet.extras import MissingExtraError
from pointnet.files import AnyPath, read_file, write_atomically
from pointnet.names import did_you_mean, did_you_mean_path, printable

WEIGHTS = Path(__file__).parent / "weights"  # a model folder for each name of shipped weights
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
NUMBERS = re.compile(r"\[\n[\s\d.,eE+-]*\n\s*\]")  # a list of numbers over several lines, which becomes one line
LAYER_TENSORS = ("weight", "bias", "running_mean", "running_var")  # by which the names of a layer's tensors end
# What else may be there, by how it begins: what torch.save and pickle write, what a clone without Git LFS has.
OTHER_KINDS = {
    rb"PK|\x80[\x02-\x05]": "a pickle, which may hold code and is not opened; see python -m pointnet convert",
    rb"version https://git-lfs": "a pointer of Git LFS, not the weights themselves; git lfs pull fetches them",
}


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
        if below := sorted(folder.glob(f"*/{CONFIG_FILE}")) if os.path.isdir(folder) else []:
            near = f"; {below[0].parent} holds one"  # as a folder of several seeds, or of all runs
        if os.path.isfile(folder):
            raise ValueError(f"{folder}: is a file; give the folder of a model: {wanted}")
        raise ValueError(f"{folder / CONFIG_FILE}: no model here; {wanted}{near}")
    return folder


def _fetch(name: str, revision: str | None) -> Path:
    """The folder in the Hub's own cache that `owner/name` was downloaded to."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        wanted = MissingExtraError("the Hugging Face Hub", "huggingface_hub", "hub")
        raise ImportError(f"{name}: no such folder, and {wanted}") from error
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE]))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{name}: no such folder, and not available from the Hugging Face Hub: {reason}") from error


def save_config(folder: AnyPath, **config: Any) -> None:
    """Writes `config.json`: model, its name in `MODELS`; arguments; classes; preprocessing, what it expects of points;
    and for a folder that is shared sha256, of its weights file."""
    text = NUMBERS.sub(lambda found: " ".join(found[0].split()), json.dumps(config, indent=2))
    write_atomically(Path(folder) / CONFIG_FILE, text.encode())


def read_model_config(folder: Path) -> dict[str, Any]:
    """What `save_config` wrote. ValueError, which names the file, for anything but a JSON object."""
    path = folder / CONFIG_FILE
    try:
        return dict(json.loads(read_file(path)))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: not a model's config: {getattr(error, 'strerror', None) or error}") from error


def save_weights(folder: AnyPath, state: Mapping[str, Tensor]) -> str:
    """Writes `model.safetensors` from a state dict; -> the file's sha256."""
    from safetensors.torch import save

    check_tensors(state)
    tensors, places = dict[str, Tensor](), set[int]()
    for name, tensor in state.items():
        tensors[name] = tensor.detach().cpu().contiguous()
        if (place := tensors[name].untyped_storage().data_ptr()) in places:  # shared, which the format has no word for
            tensors[name] = tensors[name].clone()
        places.add(place)
    content = save(tensors, {"sha256": digest(tensors)})
    write_atomically(Path(folder) / WEIGHTS_FILE, content)
    return hashlib.sha256(content).hexdigest()


def check_tensors(state: Mapping[str, Any]) -> None:
    """Raises ValueError, naming it, for what is no tensor in a state dict, such as the extra state of a module."""
    for name, value in state.items():
        if not isinstance(value, Tensor):
            kept = f"{name} in the network's state is of type {type(value).__name__}"
            raise ValueError(f"{kept}, which {WEIGHTS_FILE} cannot hold; make it a tensor, such as a buffer")


def read_weights(folder: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """What `save_weights` wrote, in float32. ValueError, which names the file, for anything else or another sha256."""
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS_FILE
    if not path.exists() and (folder / CONFIG_FILE).exists():
        raise ValueError(f"{path}: no such file; of a run, no epoch is finished")
    content = b""
    try:
        content = read_file(path)
        with safe_open(path, framework="pt") as file:
            # Copied, since the file may change under a view of it.
            state = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            stored = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError) as error:
        reason = f"not a readable safetensors file: {getattr(error, 'strerror', None) or error}"
        reason = next((kind for start, kind in OTHER_KINDS.items() if re.match(start, content)), reason)
        raise ValueError(f"{path}: {printable(reason)}") from error
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
        if reason := fault_of(name, got):
            return reason
    return next((f"it has no {name}" for name in state if name not in wanted), "")


def fault_of(name: str, tensor: Tensor) -> str:
    """Why no network can compute with this tensor of its state; empty where it can."""
    if not tensor.isfinite().all():
        return f"{name} holds numbers that are not finite"
    is_variance = name.rpartition(".")[2] == "running_var"
    return f"{name} holds variances below 0" if is_variance and bool((tensor < 0).any()) else ""


def check_numbers(state: Mapping[str, Tensor]) -> None:
    """Raises ValueError, naming it, for a weight or statistic that is not a dense tensor of floating-point numbers that
    float32 holds."""
    for name, tensor in state.items():
        if not name.endswith(LAYER_TENSORS):
            continue
        if not tensor.is_floating_point():
            raise ValueError(f"{name} is {tensor.dtype}; save the weights in a floating-point type")
        if tensor.layout != torch.strided or tensor.is_meta:
            raise ValueError(f"{name} is {tensor.layout} on {tensor.device}; save the weights as dense tensors")
        if reason := fault_of(name, tensor.float()):
            raise ValueError(reason)
