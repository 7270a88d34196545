"""Learning from trained networks: what they say of each cloud, and the loss of saying otherwise."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pointnet.evaluation.contract import Contract
from pointnet.evaluation.evaluate import check_names
from pointnet.models import load_model
from pointnet.models.weights import digest


def distillation_loss(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """T^2 KL(taught || softmax(logits / T)), the mean over clouds: logits (B, K), taught (B, K) -> scalar.

    `taught` are the teacher's probabilities at the same temperature T. The factor T^2 keeps the gradients' size the
    same for any T. Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
    """
    student = (logits / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(student, taught, reduction="batchmean")


class Teacher:
    """Trained networks; it teaches the mean of their probabilities.

    A run asks it once about each cloud, whole and as it is stored. Asking at each step, about the augmented cloud,
    would take as long in every epoch as this takes once, and many networks know little from a quarter of the points.

    Args:
        names: one or more names or folders, as `load_model` takes them.
        classes, contract: the student's; each network must have the same classes, and the same channels and
            scale.
        device: where the networks run, in eval mode and folded.

    `digest` is a hash of the weights, which tells teachers apart; `lines` name those that were trained on more points
    than the student's clouds have. ValueError, naming it, for a network that is not there or does not suit.
    """

    def __init__(self, names: Sequence[str], classes: Sequence[str], contract: Contract, device: torch.device):
        self.networks, digests = [], []
        self.lines: list[str] = []
        for name in names:
            network = load_model(name)
            check_names(network.classes, classes, f"teacher {name}", "the data set")
            taught = Contract.of(network)
            taught.check_met(contract, f"teacher {name}", "the data set")
            if contract.num_points < taught.num_points:
                trained = f"teacher {name}: it was trained on clouds of {taught.num_points:,} points"
                asked = f"and is asked about {contract.num_points:,}, from which it may know less"
                self.lines.append(f"{trained}, {asked}; see --num_points")
            digests.append(digest(network.state_dict()))
            self.networks.append(network.fold().to(device))
        self.digest = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]

    @torch.no_grad()
    def probabilities(self, x: Tensor, temperature: float) -> Tensor:
        """The mean over the networks of softmax(logits / temperature): (B, C, N) -> (B, classes), float32."""
        logits = torch.stack([network(x) for network in self.networks]).float()
        return (logits / temperature).softmax(2).mean(0)
