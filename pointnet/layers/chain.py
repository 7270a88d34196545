"""Layers that wait for the next ones, so that an operator that takes all of them and their max gets them at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pointnet.ops.aligned import Transform, check_transform, fold_transform
from pointnet.ops.masked import Mask
from pointnet.ops.mlp import may_take, mlp_max, takes
from pointnet.ops.products import autocast_dtype
from pointnet.ops.tracing import makes_a_graph

from .shared_layer import SharedLayer


@dataclass(frozen=True)
class Chain:
    """Points (B, C, N), and the layers that they have yet to go through, each with its transform.

    Only where `mlp_max` may take them does a layer ever wait; elsewhere `through` computes it at once.
    """

    x: Tensor
    mask: Mask = None
    waiting: tuple[tuple[SharedLayer, Transform], ...] = ()

    def through(self, layer: SharedLayer, transform: Transform = None) -> Chain:
        """The points behind one more layer."""
        if self._may_wait(layer, transform) and type(layer.activation) is nn.ReLU:
            return replace(self, waiting=(*self.waiting, (layer, transform)))
        return Chain(layer(self.run().x, mask=self.mask, transform=transform), self.mask)

    def run(self) -> Chain:
        """The same points with no layer waiting."""
        x = self.x
        for layer, transform in self.waiting:
            x = layer(x, mask=self.mask, transform=transform)
        return Chain(x, self.mask)

    def max_pool(self, layers: Iterable[SharedLayer], transform: Transform = None) -> Tensor:
        """The max over the points of each cloud behind more layers, the transform being the first's: -> (B, D)."""
        *most, last = layers
        chain = self
        for layer in most:
            chain, transform = chain.through(layer, transform), None
        if chain._may_wait(last, transform):
            weights, biases = chain._matrices(last, transform)
            x = chain.x.to(weights[0].dtype)
            if takes(x, weights, chain.mask):
                relu = last.activation is not None
                return mlp_max(x, weights, biases, chain.mask, relu).to(last.conv.weight.dtype)
        return last.max_pool(chain.run().x, mask=chain.mask, transform=transform)

    def _may_wait(self, layer: SharedLayer, transform: Transform) -> bool:
        if not may_take(self.x, self.mask) or makes_a_graph():
            return False
        if transform is not None:
            check_transform(transform, self.x.shape[0], layer.conv.in_channels)
        if "weight" not in layer.conv._parameters:  # it is computed by something else, perhaps at each call anew
            return False
        given = (self.x, transform, layer.conv.weight, layer.conv.bias)
        learns = torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in given)
        plain = layer.norm is None and (layer.activation is None or type(layer.activation) is nn.ReLU)
        return plain and not learns and layer.is_poolable()

    def _matrices(self, last: SharedLayer, transform: Transform) -> tuple[list[Tensor], list[Tensor | None]]:
        """Weights, with their transforms folded in, and biases, in the dtype that products are to have."""
        dtype = autocast_dtype(self.x) or self.x.dtype
        weights: list[Tensor] = []
        biases: list[Tensor | None] = []
        for layer, matrix in (*self.waiting, (last, transform)):
            weight, bias = layer.conv.weight.squeeze(2), layer.conv.bias
            weights.append((weight if matrix is None else fold_transform(weight, matrix)).to(dtype))
            biases.append(bias if bias is None else bias.to(dtype))
        return weights, biases
