"""What follows from the points that won: their values, and the gradients that go through them alone (identity 4)."""

import torch
from torch import Tensor

# Points whose z are computed at a time: on a CPU (D, TILE) floats stay in a core's cache; a GPU needs more work.
TILE = {"cpu": 1024, "cuda": 32_768}
# Numbers (C, D) from which on a CPU a cloud is worked on alone, where taking and adding columns is quicker.
LARGE = 2**14


def groups_of(x: Tensor) -> list[slice]:
    """Clouds (B, C, N) that are worked on together: so many that their points fill a tile."""
    step = max(1, TILE.get(x.device.type, 1024) // x.shape[2])
    return [slice(first, first + step) for first in range(0, x.shape[0], step)]


def values_at(winners: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """z = W x of the winners (S, B, D) in the dtype of the weight: (B, C, N), (D, C) -> (S, B, D)."""
    values = weight.new_empty(winners.shape)
    if _are_large(x, weight):
        factors = weight.T.repeat(1, len(winners))
        for cloud, won in enumerate(winners.unbind(1)):
            points = x[cloud].to(weight.dtype).index_select(1, won.flatten())
            values[:, cloud] = points.mul_(factors).sum(0).view_as(won)
        return values
    for group in groups_of(x):
        won = x[group].gather(2, _columns(winners, group, x)).to(weight.dtype).unflatten(2, (len(winners), -1))
        values[:, group] = (weight.T.unsqueeze(1) * won).sum(1).transpose(0, 1)
    return values


def through_extremes(grad: Tensor, x: Tensor, weight: Tensor, winners: Tensor) -> tuple[Tensor, Tensor]:
    """-> the gradients of x (B, C, N) and of the weight (D, C), from those of z of the winners, (S, B, D)."""
    of_winners = weight.T.repeat(1, len(grad))
    grad_weight = torch.zeros_like(of_winners)
    if _are_large(x, weight):
        grad_x = torch.zeros_like(x)
        for cloud, target in enumerate(grad_x):
            columns, share = winners[:, cloud].flatten(), grad[:, cloud].flatten()
            points = x[cloud].to(weight.dtype).index_select(1, columns)
            grad_weight.addcmul_(points, share)
            whole = target if target.dtype == weight.dtype else torch.zeros_like(target, dtype=weight.dtype)
            whole.index_add_(1, columns, torch.mul(of_winners, share, out=points))
            if whole is not target:
                target.copy_(whole)
    else:
        grad_x = torch.empty_like(x)
        for group in groups_of(x):
            columns = _columns(winners, group, x)
            share = grad[:, group].transpose(0, 1).flatten(1).unsqueeze(1)
            grad_weight += (x[group].gather(2, columns).to(weight.dtype) * share).sum(0)
            grad_x[group] = torch.zeros_like(x[group], dtype=weight.dtype).scatter_add_(2, columns, of_winners * share)
    return grad_x, grad_weight.unflatten(1, (len(grad), -1)).sum(1).T.contiguous()


def _are_large(x: Tensor, weight: Tensor) -> bool:
    return x.device.type == "cpu" and weight.numel() >= LARGE and x.is_contiguous()


def _columns(winners: Tensor, group: slice, x: Tensor) -> Tensor:
    """Winners (S, B, D) of a group of clouds as (b, C, S * D), to gather their points from x (B, C, N)."""
    return winners[:, group].transpose(0, 1).flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1)
