"""The losses of training: of labels for clouds or points, and of a teacher."""

import hashlib
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointnet.datasets import LabelledClouds, LabelledPoints, split_parts
from pointnet.evaluation.contract import Contract
from pointnet.models import PartLabels, load_model

from .settings import LossSettings

BLOCK = 256  # clouds whose labels are counted together


def label_loss(
    settings: LossSettings,
    model: nn.Module,
    logits: Tensor,
    labels: Tensor,
    category: Tensor | None,
    weights: Tensor | None = None,
) -> Tensor:
    """The mean loss over the labels (B,) or (B, N), from logits (B, K) or (B, K, N); category (B,) of objects.

    weights (K,): the loss of a label is multiplied by that of its class. Smoothing spreads evenly, whatever they are.
    """
    smoothing = settings.label_smoothing
    if labels.dim() == 1:
        if weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=smoothing)
        return (weights[labels] * F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")).mean()
    if settings.restrict and category is not None and hasattr(model, "restrict"):
        logits = cast(PartLabels, model).restrict(logits, category)
    loss = point_loss(logits, labels, smoothing, weights)
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
            labels = parts[own]
        counts += torch.bincount(labels, minlength=len(counts))
    return torch.where(counts > 0, counts.sum() / (counts.count_nonzero() * counts), 0.0).float()


def point_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of each point's logits (B, K, N) with its label (B, N), the mean over all points, each times the
    weight of its label (K,) where there are any.

    Classes whose logit is -inf are left out, from the smoothed target too. Unlike
    `torch.nn.functional.cross_entropy` of these shapes it has a deterministic gradient on a GPU.
    """
    logs, scale = logits.log_softmax(1), 1.0 if weights is None else weights[labels]
    loss = -(logs.gather(1, labels.unsqueeze(1)).squeeze(1) * scale).mean()
    if smoothing:
        finite = logits > -torch.inf
        evenly = -(torch.where(finite, logs, 0.0).sum(1) / finite.sum(1) * scale).mean()
        loss = torch.lerp(loss, evenly, smoothing)
    return loss


def soft_iou(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over clouds and classes of the IoU between labels (B, N) and probabilities from logits (B, K, N).

    Each class counts one point more, predicted right: so the IoU is 1, and has a gradient, where a cloud has no point
    of the class. Classes whose logits are -inf are left out.
    """
    probabilities = logits.softmax(1)
    true = F.one_hot(labels, logits.shape[1]).transpose(1, 2)
    both = (probabilities * true).sum(2)
    either = probabilities.sum(2) + true.sum(2) - both
    finite = logits[:, :, 0] > -torch.inf
    return (torch.where(finite, (both + 1) / (either + 1), 0.0).sum(1) / finite.sum(1)).mean()


def distillation_loss(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """T^2 KL(taught || softmax(logits / T)), the mean over clouds: logits (B, K), taught (B, K) -> scalar.

    `taught` are the teacher's probabilities at the same temperature T. The factor T^2 keeps the gradients' size the
    same for any T. Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
    """
    student = (logits / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(student, taught, reduction="batchmean")


class Teacher:
    """Trained networks; it teaches the mean of their probabilities.

    Args:
        names: one or more names or folders, as `load_model` takes them.
        classes, channels: the student's; each network must have the same.
        device: where the networks run, in eval mode and folded.

    `digest` is a hash of the weights, which tells teachers apart. ValueError, naming it, for a network that is not
    there, or is for other classes or channels.
    """

    def __init__(self, names: Sequence[str], classes: Sequence[str], channels: Sequence[str], device: torch.device):
        digest = hashlib.sha256()
        self.networks = []
        for name in names:
            network = load_model(name)
            if network.classes != tuple(classes):
                raise ValueError(f"teacher {name}: its classes are not those of the data set")
            if (taught := Contract.of(network).channels) != tuple(channels):
                got = f"{', '.join(channels)}, as the student, got {', '.join(taught)}"
                raise ValueError(f"teacher {name}: must take the channels {got}")
            for tensor in network.state_dict().values():
                digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
            self.networks.append(network.fold().to(device))
        self.digest = digest.hexdigest()[:16]

    @torch.no_grad()
    def probabilities(self, x: Tensor, temperature: float) -> Tensor:
        """The mean over the networks of softmax(logits / temperature): (B, C, N) -> (B, classes), float32."""
        logits = torch.stack([network(x) for network in self.networks]).float()
        return (logits / temperature).softmax(2).mean(0)
