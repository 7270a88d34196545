"""The T-Net: a small PointNet that predicts a matrix to align the points (PointNet, section 4.2, supplement C)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pointnet.ops.hooks import has_hooks
from pointnet.ops.products import no_autocast

from .chain import Chain
from .shared_mlp import ActivationLike, SharedMLP

TNET_WIDTHS = ((64, 128, 1024), (512, 256))  # as published: of the layers before the max, and after it


class TNet(nn.Module):
    """Predicts one matrix per cloud to align its points: (B, C, N) -> (B, dim, dim).

    Shared layers 64, 128, 1024, max over the points, then 512, 256 and dim * dim on the pooled feature. It starts as
    the identity: the last weight is zero and the last bias the identity matrix. Use it with `align`.

    Args:
        dim: the size of the matrix.
        in_channels: C, the channels it looks at; None: dim.
        widths: of the layers before the max and after it.
        activation: as of `SharedMLP`.

    Raises:
        ValueError: widths that are not in two groups.
    """

    def __init__(
        self,
        dim: int,
        in_channels: int | None = None,
        widths: Sequence[Sequence[int]] = TNET_WIDTHS,
        activation: ActivationLike = "relu",
    ):
        super().__init__()
        if len(widths) != 2 or not all(widths):
            raise ValueError(f"a T-Net's widths must be those before and those after the max, got {widths!r}")
        self.dim = dim
        before, after = widths
        self.mlp = SharedMLP([dim if in_channels is None else in_channels, *before], activation=activation)
        self.fc = SharedMLP([before[-1], *after], activation=activation).to_linear()
        self.matrix = nn.Linear(after[-1], dim * dim)
        nn.init.zeros_(self.matrix.weight)
        # Not nn.init.eye_: where models are built to be loaded, on the meta device, that imports sympy.
        self.matrix.bias.detach().zero_().view(dim, dim).fill_diagonal_(1)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, C, N) -> (B, dim, dim); lengths and errors as of `SharedMLP.forward`."""
        return self.matrix_of(self.mlp.max_pool(x, lengths=lengths))

    def of(self, points: Chain, lengths: Tensor | None = None) -> Tensor:
        """`forward` for points with layers that wait (see `Chain`): with the T-Net's own in one operator if it can."""
        if not points.waiting or has_hooks(self) or has_hooks(self.mlp):
            return self(points.run().x, lengths)
        return self.matrix_of(points.max_pool(self.mlp))

    def matrix_of(self, feature: Tensor) -> Tensor:
        """The matrix for a pooled feature: (B, 1024) -> (B, dim, dim)."""
        return self.matrix(self.fc(feature)).view(-1, self.dim, self.dim)


def orthogonality_loss(transform: Tensor) -> Tensor:
    """How far the matrices are from orthogonal: the mean over clouds of ||I - A A^T||^2_F (PointNet, equation 2).

    (B, dim, dim) -> scalar, computed in float32 or better whatever the precision around it.
    """
    with no_autocast(transform):
        a = transform.to(torch.promote_types(transform.dtype, torch.float32))
        identity = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        return (identity - a @ a.transpose(1, 2)).square().sum((1, 2)).mean()
