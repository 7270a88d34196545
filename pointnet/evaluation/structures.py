"""What a network finds in clouds before it computes, such as neighbours: once per cloud, in place of at every epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pointnet.devices import free_memory


class Structures:
    """The structures of S clouds, each found when it is first asked for and kept if memory allows: the same either way.

    A network with `find_structure(x)`, (B, C, N) -> (B, M) whole numbers, takes them as `forward(x, structure=...)`.
    They depend on no weights. They are those of points as stored, and serve for the same points moved, rotated or
    stretched.

    Args:
        find: the network's `find_structure`.
        clouds: S.
        views: how many a cloud has at most, if it stores so many times N points: the first N, the next N, ...
    """

    def __init__(self, find: Callable[[Tensor], Tensor], clouds: int, views: int = 1):
        self.find, self.clouds, self.views = find, clouds, views
        # By N: (S, views, M), None where there is no memory for it, and which clouds it has, (S,).
        self.found: dict[int, tuple[Tensor | None, Tensor]] = {}

    @classmethod
    def by(cls, model: nn.Module, clouds: int, views: int = 1) -> Structures | None:
        """None for a network that finds nothing beforehand, as most."""
        find = getattr(model, "find_structure", None)
        return None if find is None else cls(find, clouds, views)

    def of(self, stored: Tensor, rows: Tensor, count: int, turn: int = 0) -> tuple[Tensor, Tensor]:
        """A view of clouds (B, C, K), and its structure: (B, C, count), (B, M).

        Args:
            rows: (B,), which of the S clouds they are; on the CPU, as nothing here waits for the device.
            turn: the views come by turns.
        """
        views = stored.split(count, 2)[: min(self.views, stored.shape[2] // count)]
        view = turn % len(views)
        if count not in self.found:
            self.found[count] = self._room(views), torch.zeros(self.clouds, dtype=torch.bool)
        found, known = self.found[count]
        if found is None:
            return views[view], self.find(views[view])
        new, device = (~known[rows]).nonzero()[:, 0], stored.device
        if len(new):
            at = new.to(device, non_blocking=True)
            fresh = torch.stack([self.find(each[at]) for each in views], 1)
            found[rows[new].to(device, non_blocking=True)] = fresh
            known[rows[new]] = True
        return views[view], found[rows.to(device, non_blocking=True), view]

    def _room(self, views: Sequence[Tensor]) -> Tensor | None:
        """Memory for all, if it is at most half of what is free."""
        one = self.find(views[0][:1])
        shape = self.clouds, len(views), one.shape[1]
        size = one.element_size() * self.clouds * len(views) * one.shape[1]
        return one.new_empty(shape) if size <= free_memory(one.device) / 2 else None
