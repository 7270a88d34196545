"""Identities 5 to 13, broken on purpose: the test of each must notice. docs/identities.md shows the table."""

from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from pointnet import PointNet2Classifier, SharedMLP
from pointnet.layers import SetAbstraction, edge_conv, folding, neighbourhoods, set_abstraction, shared_layer
from pointnet.layers.shared_layer import SharedLayer
from pointnet.models import chunks as in_chunks
from pointnet.ops.aligned import fold_transform
from pointnet.ops.edges import pooled_edges
from pointnet.ops.groups import Lot, pooled_rows
from pointnet.ops.neighbours import ball_query, knn
from pointnet.ops.neighbours import farthest_point_sampling as fps
from tests import test_identities as proofs
from tests import test_nested_sampling


def fold_without(change, layer, name, fold=folding.fold_layer):
    if layer.norm is not None:
        change(layer.norm)
    fold(layer, name)


def half_the_winners(self, x, lengths=None, transform=None, winners=SharedMLP.winners):
    found = winners(self, x, lengths, transform)
    return found[:, : found.shape[1] // 2]


def of_different_pairs(a, b, neighbours):
    """Moments that count a point that is repeated in a ball once."""
    pairs = [
        a[c, :, i] + b[c, :, j] for c, of in enumerate(neighbours) for i, row in enumerate(of) for j in row.unique()
    ]
    z = torch.stack(pairs)
    return z.mean(0), z.var(0, unbiased=False) * neighbours.numel()


def about_the_origin(mlp, points, features, centres, neighbours, *unit, pool=neighbourhoods.pooled_neighbourhoods):
    return pool(mlp, points, features, torch.zeros_like(centres), neighbours, *unit)


def without_last_points(lots, *given):
    fewer = [([a, b, near[:, :, : max(size - 1, 1)]], max(size - 1, 1), more) for (a, b, near), size, more, _ in lots]
    return pooled_rows([Lot(*lot) for lot in fewer], *given)


def the_last_centres(layer, points, lengths=None, chosen=SetAbstraction.chosen):
    found = chosen(layer, points, lengths)
    return points.shape[2] - 1 - found if layer.in_order else found


SETS = partial(proofs.test_identities_7_and_11_a_set_abstraction_is_a_small_network_at_each_centre, [8, 6], True)
EDGES = partial(proofs.test_identity_12_an_edge_convolution_is_a_layer_on_each_edge, True)
LEVELS = partial(
    test_nested_sampling.test_networks_are_those_whose_levels_sample_each_for_itself, PointNet2Classifier, False, None
)
BROKEN = {
    "identity 5: the context's columns first": (
        (SharedLayer, "project", lambda self, x, context=None, transform=None: self.conv(torch.cat(
            [*(c if c.dim() == 3 else c[:, :, None].expand(-1, -1, x.shape[2]) for c in context or ()), x], 1))),
        lambda: proofs.test_identity_5_any_number_of_tensors_are_their_concatenation(True, False, False),
    ),
    "identity 6: T in place of its transpose": (
        (shared_layer, "fold_transform", lambda weight, transform: fold_transform(weight, transform.transpose(1, 2))),
        lambda: proofs.test_identity_6_a_transform_folds_into_the_next_weight(3),
    ),
    "identity 8: the mean left out": (
        (folding, "fold_layer", partial(fold_without, lambda norm: norm.running_mean.zero_())),
        lambda: proofs.test_identity_8_a_folded_network_is_the_network(torch.float64),
    ),
    "identity 8: epsilon left out": (
        (folding, "fold_layer", partial(fold_without, lambda norm: vars(norm).update(eps=0.0))),
        lambda: proofs.test_identity_8_a_folded_network_is_the_network(torch.float64),
    ),
    "identity 9: the last chunk only": (
        (in_chunks, "max_of_chunks", lambda pool, chunks: [pool(chunk) for chunk in chunks][-1]),
        lambda: proofs.test_identity_9_a_cloud_in_chunks_is_the_cloud(True, 7),
    ),
    "identity 9: the sum of the chunks": (
        (in_chunks, "max_of_chunks", lambda pool, chunks: sum(pool(chunk) for chunk in chunks)),
        lambda: proofs.test_identity_9_a_cloud_in_chunks_is_the_cloud(True, 7),
    ),
    "identity 10: half of the channels' winners": (
        (SharedMLP, "winners", half_the_winners),
        lambda: proofs.test_identity_10_any_subset_with_the_critical_points_has_the_same_logits(True, "relu"),
    ),
    "identity 7: the centre not subtracted": ((set_abstraction, "pooled_neighbourhoods", about_the_origin), SETS),
    "identity 7: neighbours off by one": (
        (set_abstraction, "ball_query", lambda x, *given: (ball_query(x, *given) + 1) % x.shape[2]), SETS),
    "identity 7: a repeated neighbour counted once in the statistics": (
        (neighbourhoods, "edge_moments", of_different_pairs), SETS),
    "identity 11: a group without its last point": ((neighbourhoods, "pooled_rows", without_last_points), SETS),
    "identity 11: a repeated neighbour counted once in the pooled layer's statistics": (
        (neighbourhoods, "pooled_rows", lambda lots, *given: pooled_rows([Lot(*lot[:2], 0) for lot in lots], *given)),
        SETS,
    ),
    "identity 12: the point itself not among its neighbours": (
        (edge_conv, "knn", lambda x, most, *given: knn(x, most + 1, *given)[:, :, 1:]), EDGES,
    ),
    "identity 12: the halves of the weight exchanged": (
        (edge_conv, "pooled_edges", lambda a, b, *given: pooled_edges(b, a, *given)), EDGES,
    ),
    "identity 12: the centre's half left out": (
        (edge_conv, "pooled_edges", lambda a, b, *given: pooled_edges(torch.zeros_like(a), b, *given)), EDGES,
    ),
    "identity 13: the last of the farthest points": ((SetAbstraction, "chosen", the_last_centres), LEVELS),
    "identity 13: the farthest points in the order of the cloud": (
        (set_abstraction, "farthest_point_sampling", lambda x, count, *given: fps(x, count, *given).sort().values),
        LEVELS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("title", BROKEN)
def test_a_broken_identity_is_caught_and_the_page_says_so(title):
    (target, name, broken), test = BROKEN[title]
    test()
    with patch.object(target, name, broken), pytest.raises(AssertionError):
        test()
    page = (Path(__file__).parents[1] / "docs" / "identities.md").read_text(encoding="utf-8")
    assert f"| {title} |" in page
