"""Learning from trained networks.

Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pointnet.models import load_model


class Teacher:
    """Trained networks, and the mean of what they say.

    Args:
        names: what `load_model` takes, of one network or more.
        classes, normals: of the student, which they must share.
        device: where they run, in eval and folded.

    `digest` tells teachers apart: a hash of their weights.

    Raises:
        ValueError: one is not there, or was trained for other classes or channels; the message names it.
    """

    def __init__(self, names: Sequence[str], classes: Sequence[str], normals: bool, device: torch.device):
        digest = hashlib.sha256()
        self.networks = []
        for name in names:
            network = load_model(name)
            if network.classes != tuple(classes):
                raise ValueError(f"teacher {name}: its classes are not those of the data set")
            if network.preprocessing.get("normals", False) != normals:
                wanted, got = ("with", "without") if normals else ("without", "with")
                raise ValueError(f"teacher {name}: must take points {wanted} normals, as the student, got one {got}")
            for tensor in network.state_dict().values():
                digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
            self.networks.append(network.fold().to(device))
        self.digest = digest.hexdigest()[:16]

    @torch.no_grad()
    def probabilities(self, x: Tensor, temperature: float) -> Tensor:
        """The mean over the networks of softmax(logits / temperature): (B, C, N) -> (B, classes), float32."""
        logits = torch.stack([network(x) for network in self.networks]).float()
        return (logits / temperature).softmax(2).mean(0)


def distillation_loss(logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """How far the student is from the teacher: T^2 KL(wanted || softmax(logits / T)), the mean over clouds.

    logits (B, K), wanted (B, K) probabilities at the same temperature T -> scalar. With T^2 the gradients keep their
    size whatever T is.
    """
    student = (logits / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(student, wanted, reduction="batchmean")
