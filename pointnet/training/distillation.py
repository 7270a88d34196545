"""Trained networks as the teacher of another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from pointnet.models import load_model


class Teacher:
    """Trained networks; it teaches the mean of their probabilities.

    Args:
        names: one or more names or folders, as `load_model` takes them.
        classes, normals: the student's; each network must have the same.
        device: where the networks run, in eval mode and folded.

    `digest` is a hash of the weights, which tells teachers apart.

    Raises:
        ValueError: no such network, or one for other classes or channels; the message names it.
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
