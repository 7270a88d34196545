"""Exported files as somebody runs them who does not have this library, and networks that are worth exporting."""

import json

import numpy as np
import pytest
import torch

from pointnet import TNet


def need(format: str) -> None:
    """Skips, with the reason, if the packages of a format are not installed."""
    for package in ("onnx", "onnxscript", "onnxruntime") if format == "onnx" else ():
        pytest.importorskip(package, reason=f"needs {package}, of the extra export")


@torch.no_grad()
def taught(model):
    """As after training: no T-Net returns the identity, norms have seen clouds, and logits depend on the points."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    for module in model.modules():
        if isinstance(module, TNet):
            torch.nn.init.normal_(module.matrix.weight, std=0.05)
    for norm in norms:
        torch.nn.init.normal_(norm.weight)
        norm.momentum = 1.0
    channels = model.arguments["in_channels"]
    x = torch.randn(32, channels, 40) * torch.rand(32, channels, 1)
    x /= x[:, :3].norm(dim=1).amax(1)[:, None, None]
    model.train()(x)
    for norm in norms:
        norm.momentum = 0.1
    logits = model.eval()(x).transpose(0, 1).flatten(1)
    weight, bias = model.logits.parameters()
    scale = 1.5 / logits.std(1)
    weight *= scale.view(-1, *[1] * (weight.dim() - 1))
    bias.sub_(logits.mean(1)).mul_(scale)
    return model


def runner(format: str, path):
    """The file as a function of points and category, without this library."""
    if format == "torch":
        return torch.export.load(path).module()
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    names = [each.name for each in session.get_inputs()]
    return lambda *given: torch.from_numpy(
        session.run(["logits"], {name: each.numpy() for name, each in zip(names, given, strict=True)})[0]
    )


def metadata_of(format: str, path) -> dict:
    """What the file says of itself."""
    if format == "onnx":
        import onnxruntime

        held = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    else:
        files = {"metadata.json": ""}
        torch.export.load(path, extra_files=files)
        held = json.loads(files["metadata.json"])
    return {name: json.loads(value) for name, value in held.items()}


@torch.no_grad()
def shares_by_hand(format, path, points, *category) -> torch.Tensor:
    """The file's probabilities for points of a file, as its metadata says that they are made."""
    contract = metadata_of(format, path)
    if contract["up"] == "y":
        points = points[:, [0, 2, 1]] * (1, -1, 1)
    if contract["centre"]:
        points = points - points.mean(0)
    if contract["scale"] == "unit sphere":
        points = points / np.linalg.norm(points, axis=1).max()
    x = torch.from_numpy(points.T[None].astype(np.float32))
    return (runner(format, path)(x, *category)[0] / contract["temperature"]).softmax(0)
