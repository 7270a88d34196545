"""Modules, tensors in and tensors out: the shared MLP, the T-Net, set abstraction, and the views of one layer."""

from pointnet.ops.aligned import align

from .edge_conv import EdgeConv
from .feature_propagation import FeaturePropagation
from .set_abstraction import SetAbstraction
from .shared_layer import synchronize_norms
from .shared_mlp import SharedMLP
from .tnet import TNet, orthogonality_loss
from .views import (
    conv1d_to_linear,
    conv2d_to_linear,
    linear_to_conv1d,
    linear_to_full_conv2d,
    linear_to_pointwise_conv2d,
    summed_conv2d_to_linear,
)

__all__ = [
    "EdgeConv", "FeaturePropagation", "SetAbstraction", "SharedMLP", "TNet", "align", "conv1d_to_linear",
    "conv2d_to_linear", "linear_to_conv1d", "linear_to_full_conv2d", "linear_to_pointwise_conv2d", "orthogonality_loss",
    "summed_conv2d_to_linear", "synchronize_norms",
]  # fmt: skip
