"""A label for every point: PointNet's part and scene segmentation (Qi et al., CVPR 2017, figures 2 and 9).

As published, each point gets the outputs of the layers it went through and a copy of its cloud's feature, side by side,
and a shared MLP scores it. Here that tensor is never built: each input is multiplied by its own columns of the first
weight, the feature once per cloud (identity 5), the points not yet multiplied by their transform (identity 6).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from pointnet.layers.shared_mlp import SharedMLP
from pointnet.layers.tnet import TNET_WIDTHS
from pointnet.ops.masked import Lengths, check_range

from .chunks import check_points_are_independent
from .encoder import ENCODER_WIDTHS, Encoding, Output, PointNetEncoder, PointNetModel
from .pretrained import Pretrained, check_sizes

# As published: of the part encoder before and after its feature transform, and of the heads' hidden layers.
PART_ENCODER_WIDTHS, PART_HEAD_WIDTHS = ((64, 128, 128), (512, 2048)), (256, 256, 128)
SCENE_HEAD_WIDTHS = (512, 256, 128, 128)
HEAD_TAKES = ("published", "released", "aligned")
Category = Tensor | None  # (B,) int64, the category of each object; -1 where it is not known; None: of none


def restricted(logits: Tensor, category: Tensor, parts_of: Tensor) -> Tensor:
    """The logits (B, parts, N), -inf for parts that the object's category (B,) does not have by the table
    (categories, parts) bool. Where the category is -1, not known, all stay."""
    allowed = parts_of[category.clamp(min=0)] | (category < 0).unsqueeze(1)
    return logits.masked_fill(~allowed.unsqueeze(2), -torch.inf)


class PartLabels(Pretrained):
    """What a network for parts knows of objects: the parts of each category, and a category as numbers.

    A subclass calls `know` first.
    """

    needs_density: ClassVar[bool] = False  # it is right where clouds have about as many points as in training

    def know(self, num_parts: int, num_categories: int, parts_of: Sequence[Sequence[int]] | None) -> None:
        """Keeps the parts and categories, arguments as of `PointNetPartSegmenter`. ValueError: outside what it says."""
        for name, value in (("num_parts", num_parts), ("num_categories", num_categories)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.num_categories = num_categories
        self.parts_of = None if parts_of is None else [list(parts) for parts in parts_of]
        if parts_of is not None and len(parts_of) != num_categories:
            raise ValueError(f"parts_of must have a list for each of {num_categories} categories, got {len(parts_of)}")
        for each, parts in enumerate(self.parts_of or []):
            if not parts or any(not 0 <= part < num_parts for part in parts):
                wanted = f"one or more numbers below {num_parts}"
                raise ValueError(f"parts_of category {each} must be {wanted}, got {parts}")

    def arguments_for(self, num_outputs: int) -> dict[str, Any]:
        return {**self.arguments, "num_parts": num_outputs, "parts_of": None}

    def restrict(self, logits: Tensor, category: Category) -> Tensor:
        """The logits (B, num_parts, N), -inf for parts that the object's category (B,) does not have.

        Evaluation and prediction choose among the others, and so does the loss of training, but for `--restrict false`,
        which is as published. Where the category is not known, None or -1, all logits stay.
        """
        if category is None or self.parts_of is None:
            return logits
        table = [[part in parts for part in range(self.num_outputs)] for parts in self.parts_of]
        return restricted(logits, category.to(logits.device), torch.tensor(table, device=logits.device))

    def one_hot(self, category: Category, like: Tensor) -> Tensor:
        """(B,) -> (B, num_categories) in the dtype of `like` (B, ...); zeros where it is not known."""
        known = like.new_zeros(like.shape[0], self.num_categories)  # len() would fix an exported network's batch
        if category is None:
            return known
        if category.shape != like.shape[:1] or category.dtype != torch.int64:
            wanted = f"({len(like)},) int64, one per cloud"
            raise ValueError(f"category must be {wanted}, got {tuple(category.shape)} {category.dtype}")
        check_range("category", category, -1, self.num_categories - 1)
        category = category.to(like.device).unsqueeze(1)
        return known.scatter(1, category.clamp(min=0), (category >= 0).to(known.dtype))

    @torch.no_grad()
    def label_chunks(self, seen: Tensor, chunks: Iterable[Tensor], category: Category = None) -> Iterator[Tensor]:
        """The logits (B, num_parts, n) of clouds of any size, chunk by chunk (B, C, n), in the memory of one.

        Once it is known what a point's logits depend on beside the point, no point depends on another. If `seen` is all
        points, the logits equal those of the whole clouds.

        Args:
            seen: (B, C, N), the points that stand for the clouds: all, or a large enough sample.
            category: as in `forward`.

        Raises:
            ValueError: in training mode or without running statistics, where the norms would need the whole cloud.
        """
        check_points_are_independent(self)
        cloud = self.see(seen)
        for chunk in chunks:
            yield self.score_chunk(chunk, category, cloud)

    def see(self, x: Tensor) -> Any:
        """What the logits of a point depend on beside the point: (B, C, N) -> it."""
        raise NotImplementedError

    def score_chunk(self, x: Tensor, category: Category, seen: Any) -> Tensor:
        """(B, C, n) -> (B, num_parts, n), of clouds of which this was seen."""
        raise NotImplementedError


class PointNetLabeller(PointNetModel):
    """A network whose head of shared layers scores each point.

    Args:
        encoder, regularization_weight: see `PointNetModel`.
        widths: of the head's layers, from what each point is given to the logits.
        dropout: after each hidden layer of the head; none as published.
    """

    scores_each_point = True

    def __init__(self, encoder: PointNetEncoder, widths: Sequence[int], dropout: float, regularization_weight: float):
        super().__init__(encoder, regularization_weight)
        self.head = SharedMLP(widths[:-1], dropout=dropout)
        self.logits = SharedMLP(widths[-2:], norm=None, activation=None)


class PointNetPartSegmenter(PartLabels, PointNetLabeller, name="pointnet_part"):
    """Scores each point of an object for each part: (B, C, N) -> (B, num_parts, N) logits (supplement C, figure 9).

    Shared layers 64, 128, 128 | 512, 2048, aligned at the bar by a 128 x 128 T-Net. The head takes 3,024 channels per
    point, its columns in this order: the aligned ones (128), the outputs of the first four layers (64, 128, 128, 512),
    the cloud's feature (2048) and the object's category, one-hot (16). Then 256, 256, 128 and the logits. One network
    for all categories. 7,843,387 parameters at 50 parts and 16 categories.

    The authors' released code is another graph: T-Nets of other widths; the head also takes the pooled layer's 2,048
    channels, but not the aligned ones (`head_takes="released"`), and has dropout; a second head classifies the
    category.

    Args:
        num_parts: how many parts, those of all categories together.
        num_categories: how many object categories.
        in_channels, input_transform, feature_transform, widths, tnet_widths, last_activation: see `PointNetEncoder`.
        parts_of: for each category the numbers of its parts, for `restrict`; None: any part may be of any category.
        dropout, head_widths: of the hidden layers of the head; no dropout as published.
        regularization_weight: see `PointNetModel`.
        head_takes: per point, beside the cloud's feature and the category: "published", as above; "released", the
            outputs of all five layers; "aligned", the aligned channels alone, as `PointNetSegmenter` and popular ports.

    Raises:
        ValueError: an argument outside the values above.
    """

    def __init__(
        self,
        num_parts: int = 50,
        num_categories: int = 16,
        in_channels: int = 3,
        input_transform: bool = True,
        feature_transform: bool = True,
        parts_of: Sequence[Sequence[int]] | None = None,
        dropout: float = 0.0,
        regularization_weight: float = 0.016,
        widths: Sequence[Sequence[int]] = PART_ENCODER_WIDTHS,
        head_widths: Sequence[int] = PART_HEAD_WIDTHS,
        tnet_widths: Sequence[Sequence[int]] = TNET_WIDTHS,
        last_activation: bool = True,
        head_takes: str = HEAD_TAKES[0],
    ):
        if head_takes not in HEAD_TAKES:
            raise ValueError(f"head_takes must be {', '.join(HEAD_TAKES)}, got {head_takes!r}")
        self.know(num_parts, num_categories, parts_of)
        transforms = input_transform, feature_transform
        encoder = PointNetEncoder(in_channels, *transforms, widths, last_activation, tnet_widths)
        aligned, pooled = widths[0][-1], widths[1][-1]
        every = sum(map(sum, widths))
        given = {"published": aligned + every - pooled, "released": every, "aligned": aligned}[head_takes]
        layers = [given + pooled + num_categories, *head_widths, num_parts]
        super().__init__(encoder, layers, dropout, regularization_weight)
        self.head_takes = head_takes

    def forward(
        self, x: Tensor, category: Category = None, lengths: Lengths = None, return_transforms: bool = False
    ) -> Output:
        """(B, C, N) -> (B, num_parts, N) logits, and the T-Nets' matrices if asked for.

        Args:
            category: (B,) int64 below num_categories, the category of each object; -1 where it is not known. None:
                it is known of no object.
            lengths: (B,) integers; only the first lengths[b] points of cloud b exist. The logits of the rest are 0.

        Raises:
            ValueError: points, category or lengths of another shape, dtype or range; on a GPU ranges are not checked.
        """
        encoding = self.encoder(x, lengths, keep=self._kept)
        logits = self._score(encoding, category, lengths)
        return (logits, encoding.transforms) if return_transforms else logits

    def see(self, x: Tensor) -> Encoding:
        return self.encoder.encode(x)

    def score_chunk(self, x: Tensor, category: Category, seen: Encoding) -> Tensor:
        return self._score(self.encoder.encode(x, keep=self._kept, of=seen), category)

    @property
    def _kept(self) -> range:
        """The layers whose outputs the head takes; as published all but the pooled one."""
        aligned, pooled = len(self.encoder.mlp1), len(self.encoder.mlp1) + len(self.encoder.mlp2)
        first = aligned if self.head_takes == "aligned" else 1
        return range(first, {"published": pooled, "released": pooled + 1, "aligned": aligned + 1}[self.head_takes])

    def _score(self, encoding: Encoding, category: Category, lengths: Lengths = None) -> Tensor:
        feature, transforms, per_point = encoding
        x, *rest = per_point
        transform = None if self.head_takes == "released" else transforms.feature
        if self.head_takes == "published":
            x, rest = per_point[len(self.encoder.mlp1) - 1], [*per_point]  # x by the transform that the head is given
        context = [*rest, feature, self.one_hot(category, feature)]
        return self.logits(self.head(x, context, lengths, transform), lengths=lengths)


class PointNetSegmenter(PointNetLabeller, name="pointnet_scene"):
    """Scores each point of a scene for each class: (B, C, N) -> (B, num_classes, N) logits (figure 2).

    The encoder, then for each point the 64 channels that the feature T-Net has aligned and the cloud's feature, 1,088
    in all, through 512, 256, 128, 128 and the logits. 9 input channels for indoor scenes: xyz, RGB, and xyz as a share
    of the room. 3,548,566 parameters at 13 classes. The authors' released code for scenes is another graph, without
    T-Nets.

    Args:
        num_classes: how many classes.
        in_channels, input_transform, feature_transform, widths, tnet_widths, last_activation: see `PointNetEncoder`.
        dropout, head_widths, regularization_weight: as of `PointNetPartSegmenter`.

    Raises:
        ValueError: fewer than one class, or as of `PointNetEncoder`.
    """

    def __init__(
        self,
        num_classes: int = 13,
        in_channels: int = 9,
        input_transform: bool = True,
        feature_transform: bool = True,
        dropout: float = 0.0,
        regularization_weight: float = 0.016,
        widths: Sequence[Sequence[int]] = ENCODER_WIDTHS,
        head_widths: Sequence[int] = SCENE_HEAD_WIDTHS,
        tnet_widths: Sequence[Sequence[int]] = TNET_WIDTHS,
        last_activation: bool = True,
    ):
        check_sizes(num_classes)
        transforms = input_transform, feature_transform
        encoder = PointNetEncoder(in_channels, *transforms, widths, last_activation, tnet_widths)
        given = widths[0][-1] + widths[1][-1]
        super().__init__(encoder, [given, *head_widths, num_classes], dropout, regularization_weight)

    def forward(self, x: Tensor, lengths: Lengths = None, return_transforms: bool = False) -> Output:
        """As `PointNetPartSegmenter.forward`, without a category: (B, C, N) -> (B, num_classes, N) logits."""
        feature, transforms, (x,) = self.encoder(x, lengths, keep=[len(self.encoder.mlp1)])
        logits = self.logits(self.head(x, feature, lengths, transforms.feature), lengths=lengths)
        return (logits, transforms) if return_transforms else logits
