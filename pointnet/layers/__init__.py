"""Modules, tensors in and tensors out: the shared MLP, the T-Net, and the views of one layer."""

from pointnet.ops.aligned import align

from .shared_mlp import SharedMLP
from .tnet import TNet, orthogonality_loss
from .views import conv1d_to_linear, linear_to_conv1d

__all__ = ["SharedMLP", "TNet", "align", "conv1d_to_linear", "linear_to_conv1d", "orthogonality_loss"]
