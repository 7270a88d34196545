"""Models by name, and what they have learned: to a folder and back.

A model folder holds `config.json` (how to rebuild the model) and `model.safetensors` (its state, with a sha256 of it
in the header: safetensors itself does not notice a flipped bit).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pointnet.files import write_atomically

from .pointnet import PointNetClassifier

MODELS: dict[str, Callable[..., PointNetClassifier]] = {"pointnet": PointNetClassifier}


def save_config(
    folder: str | os.PathLike[str],
    model: str,
    arguments: Mapping[str, Any],
    classes: Sequence[str],
    preprocessing: Mapping[str, Any],
) -> None:
    """Writes `config.json`: the model's name in `MODELS`, its arguments, its classes, and what it expects of points."""
    config = {
        "model": model,
        "arguments": dict(arguments),
        "classes": list(classes),
        "preprocessing": dict(preprocessing),
    }
    write_atomically(Path(folder) / "config.json", json.dumps(config, indent=2).encode())


def save_weights(folder: str | os.PathLike[str], state: Mapping[str, Tensor]) -> None:
    """Writes `model.safetensors` from a state dict."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_atomically(Path(folder) / "model.safetensors", save(tensors, {"sha256": _digest(tensors)}))


def load_model(path: str | os.PathLike[str]) -> PointNetClassifier:
    """The model of a run folder, in eval mode, on the CPU.

    It has `.classes`, a tuple of names in the order of its logits, and `.preprocessing`, what it expects of points.

    Raises:
        ValueError: the folder holds no model, or a file of it is damaged; the message names the file.
    """
    folder = Path(path)
    config = _read_config(folder / "config.json")
    try:
        model = MODELS[config["model"]](**config["arguments"])
        model.classes = tuple(config["classes"])
        model.preprocessing = dict(config["preprocessing"])
        if not isinstance(model.preprocessing["num_points"], int):
            raise TypeError("num_points must be an integer")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"does not describe a model of this library: {error!r}"
        raise ValueError(f"{folder / 'config.json'}: {reason}") from error
    state = _read_weights(folder / "model.safetensors")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(f"does not fit the model in config.json: {error}".split())
        raise ValueError(f"{folder / 'model.safetensors'}: {reason}") from error
    return model.eval()


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"{path}: no model here; a run folder holds config.json and model.safetensors") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: not a model's config: {error}") from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            expected = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: not a readable safetensors file: {error}") from error
    if expected != _digest(state):
        raise ValueError(f"{path}: damaged: its content does not match the sha256 stored with it")
    return state


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
