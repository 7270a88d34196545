"""A classifier's weights as `explain.html` holds them: norms folded in, matrices of 8 bits with one scale per row.

Half precision would be 2.2 MB of text, and the page has to stay below 1.5 MB.
"""

import base64
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from pointnet.layers.folding import fold_norms
from pointnet.models import PointNetClassifier

LARGEST = 127  # a whole number of 8 bits


def packed(model: PointNetClassifier) -> dict[str, Any]:
    """The classifier as `explain_network.js` reads it; T-Nets are not held.

    `layers` are the (D, C) of each matrix, the first `shared` of them those of the shared MLP. `data` is base64: of
    each layer the scales (D,) and the biases (D,) in float32, then all matrices in int8.
    """
    layers = _linears(fold_norms(model))
    rows = [eight_bits(weight) for weight, _ in layers]
    floats = [part for (scale, _), (_, bias) in zip(rows, layers, strict=True) for part in (scale, bias)]
    numbers = torch.cat(floats).numpy().astype("<f4").tobytes()
    matrices = np.concatenate([whole.numpy().reshape(-1) for _, whole in rows]).tobytes()
    return {
        "classes": [*model.classes],
        "temperature": model.preprocessing["temperature"],
        "layers": [[*weight.shape] for weight, _ in layers],
        "shared": len(model.encoder.mlp1) + len(model.encoder.mlp2),
        "data": base64.b64encode(numbers + matrices).decode("ascii"),
    }


@torch.no_grad()
def as_on_page(model: PointNetClassifier) -> PointNetClassifier:
    """A copy in eval mode with the numbers that the page holds: what the page computes, in PyTorch."""
    folded = fold_norms(model)
    for weight, _ in _linears(folded):
        scale, whole = eight_bits(weight)
        weight.copy_(scale[:, None] * whole)
    return folded


def eight_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A scale per row and whole numbers whose product errs by at most half a scale: (D, C) -> (D,), (D, C) int8."""
    scale = weight.abs().amax(1) / LARGEST
    return scale, (weight / scale.clamp(min=torch.finfo(scale.dtype).tiny)[:, None]).round().to(torch.int8)


def _linears(folded: PointNetClassifier) -> list[tuple[Tensor, Tensor]]:
    """Views of the matrix (D, C) and the bias (D,) of each layer, in the order of the computation."""
    encoder = folded.encoder
    layers: list[nn.Conv1d | nn.Linear] = [layer.conv for layer in (*encoder.mlp1, *encoder.mlp2)]
    layers += [module for module in folded.head if isinstance(module, nn.Linear)] + [folded.logits]
    # Where norms were folded in, every layer has a bias.
    return [(layer.weight.detach().flatten(1), cast(Tensor, layer.bias).detach()) for layer in layers]
