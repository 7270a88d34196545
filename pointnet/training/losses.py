"""The losses of training: of labels for clouds or points, and of a teacher."""

import torch
from torch import Tensor
from torch.nn import functional as F

from pointnet.datasets import LabelledClouds, LabelledPoints, split_parts
from pointnet.models.segmentation import restricted

from .settings import LossSettings

BLOCK = 256  # clouds whose labels are counted together
LEAST = 1e-6  # labels that a sum is divided by: where there are none it is 0


def label_loss(
    settings: LossSettings,
    logits: Tensor,
    labels: Tensor,
    category: Tensor | None,
    parts_of: Tensor | None = None,
    weights: Tensor | None = None,
    count: Tensor | None = None,
) -> Tensor:
    """The mean loss over the labels (B,) or (B, N), from logits (B, K) or (B, K, N); category (B,) of objects. A point
    whose label is negative has none, and no loss.

    parts_of (categories, K) bool: the parts of each category, which are compared alone where the settings say so.
    weights (K,): the loss of a label is multiplied by that of its class. Smoothing spreads evenly, whatever they are.
    count (): by how many labels that of points is divided; None: by those that are here.
    """
    smoothing = settings.label_smoothing
    if labels.dim() == 1:
        if weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=smoothing)
        return (weights[labels] * F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")).mean()
    if settings.restrict and category is not None and parts_of is not None:
        logits = restricted(logits, category, parts_of)
    loss = point_loss(logits, labels, smoothing, weights, count)
    if settings.overlap and category is not None:
        loss = torch.lerp(loss, 1 - soft_iou(logits, labels), settings.overlap)
    return loss


def balanced_weights(data: LabelledClouds) -> Tensor:
    """The weight of each class (K,) by which all classes count alike: labels / (classes that occur * its labels).

    0 for a class that does not occur. Labels are those of clouds, or of points, each counted once. Source:
    scikit-learn's `class_weight="balanced"`.
    """
    classes = data.part_names if isinstance(data, LabelledPoints) else data.classes
    counts = torch.zeros(len(classes), dtype=torch.int64)
    for rows in torch.arange(len(data)).split(BLOCK):
        labels = data.labels[rows]
        if isinstance(data, LabelledPoints):
            _, parts, own = split_parts(data.batch(rows)[0])
            labels = parts[own & (parts >= 0)]
        counts += torch.bincount(labels, minlength=len(counts))
    return torch.where(counts > 0, counts.sum() / (counts.count_nonzero() * counts), 0.0).float()


def point_loss(
    logits: Tensor,
    labels: Tensor,
    smoothing: float = 0.0,
    weights: Tensor | None = None,
    count: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of each point's logits (B, K, N) with its label (B, N), the mean over all points that have one (are
    not negative), or their sum over `count`, each times the weight of its label (K,) where there are any; 0 where no
    point has one.

    Classes whose logit is -inf are left out, from the smoothed target too. Unlike
    `torch.nn.functional.cross_entropy` of these shapes it has a deterministic gradient on a GPU.
    """
    logs, has, labels = logits.log_softmax(1), labels >= 0, labels.clamp(min=0)
    share = has.to(logs) / (has.sum() if count is None else count).clamp(min=LEAST)
    share = share if weights is None else share * weights[labels]
    loss = -torch.where(has, logs.gather(1, labels.unsqueeze(1)).squeeze(1) * share, 0.0).sum()
    if smoothing:
        finite = logits > -torch.inf
        evenly = -torch.where(has, torch.where(finite, logs, 0.0).sum(1) / finite.sum(1) * share, 0.0).sum()
        loss = torch.lerp(loss, evenly, smoothing)
    return loss


def soft_iou(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over clouds and classes of the IoU between labels (B, N) and probabilities from logits (B, K, N).

    Each class counts one point more, predicted right: so the IoU is 1, and has a gradient, where a cloud has no point
    of the class. Classes whose logits are -inf are left out, and so are points without a label (a negative one).
    """
    has = (labels >= 0).unsqueeze(1)
    probabilities = logits.softmax(1) * has
    true = F.one_hot(labels.clamp(min=0), logits.shape[1]).transpose(1, 2) * has
    both = (probabilities * true).sum(2)
    either = probabilities.sum(2) + true.sum(2) - both
    finite = logits[:, :, 0] > -torch.inf
    return (torch.where(finite, (both + 1) / (either + 1), 0.0).sum(1) / finite.sum(1)).mean()
