"""PointNet++'s way back: features of centres carried to the points (Qi, Yi, Su, Guibas, NIPS 2017, section 3.4;
released code: github.com/charlesq34/pointnet2, utils/pointnet_util.py)."""

from collections.abc import Sequence

from torch import Tensor, nn

from pointnet.ops.masked import Lengths, check_tensor, fill_padding, point_mask
from pointnet.ops.neighbours import interpolate

from .neighbourhoods import Features
from .shared_layer import as_sequence, check_points, refuse_script
from .shared_mlp import SharedMLP


class FeaturePropagation(nn.Module):
    """Features of centres carried back to the points: (B, D, S) -> (B, E, N), section 3.4.

    Each point gets the mean of its three nearest centres' features, weighted by 1 / squared distance, beside the
    features that it has; a shared MLP sees both, the interpolated ones first.

    Args:
        in_channels: D + C, of the centres' features and of the points' own.
        widths: of the MLP's layers; E is the last.
    """

    __prepare_scriptable__ = refuse_script

    def __init__(self, in_channels: int, widths: Sequence[int]):
        super().__init__()
        self.mlp = SharedMLP([in_channels, *widths])

    def forward(
        self,
        points: Tensor,
        features: Features | Sequence[Tensor],
        centres: Tensor,
        of_centres: Tensor,
        lengths: Lengths = None,
        existing: Lengths = None,
    ) -> Tensor:
        """(B, 3, N), (B, C, N), (B, 3, S), (B, D, S) -> (B, E, N), 0 where no point exists.

        Args:
            features: of the points: one tensor, several, (B, C) where all points of a cloud have the same; or none.
            lengths: (B,), how many points of each cloud exist.
            existing: (B,), how many of its centres do (`SetAbstraction.existing_centres`); None: all.

        Raises:
            ValueError: a wrong shape, or no points. TypeError: no tensor, or a dtype other than the weights'.
        """
        check_points(points, 3)
        for name, each in (("centres", centres), ("of_centres", of_centres)):
            check_tensor(name, each)
        own, wanted = as_sequence(features), self.mlp.widths[0]
        if of_centres.dim() == 3 and all(each.dim() in (2, 3) for each in own):
            counts = of_centres.shape[1], sum(each.shape[1] for each in own)
            if sum(counts) != wanted:
                parts = f"{counts[0]} of the centres and {counts[1]} of the points"
                raise ValueError(f"features must have {wanted} channels together, got {parts}")
        if lengths is not None:
            points = fill_padding(points, point_mask(lengths, points))
        return self.mlp(interpolate(of_centres, centres, points, existing), features, lengths)
