"""Weights of the widely used PyTorch forms of PointNet++ and DGCNN, as models of ours that compute the same.

Known are the classifiers of yanx27/Pointnet_Pointnet2_pytorch (`pointnet2_cls_ssg`, `pointnet2_cls_msg`: `sa1`, `fc1`)
and of WangYueFt/dgcnn and AnTao97/dgcnn.pytorch (`DGCNN`, `DGCNN_cls`: `conv1.0`, `linear1`), of the published widths.
They differ from ours:

- with several scales a point's features come before its coordinates, and in an edge x_j - x_i before x_i: here columns
  move;
- a bias before a batch norm: here it is subtracted from the norm's running mean;
- PointNet++ gives log-probabilities: `log_softmax(1)` of ours is theirs;
- its first centre is a random point, here the first; a ball has the points at its rim too;
- DGCNN's file does not hold the number of neighbours: here their default, 20.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .dgcnn import DGCNNClassifier
from .pointnet2 import LEVELS, PointNet2Classifier

Family = PointNet2Classifier | DGCNNClassifier
Names = list[tuple[str, str]]  # of each linear layer and of its norm, in order; "" for none


def is_of_family(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the names of one of these classifiers."""
    kinds = [("sa3.mlp_convs.0.weight", "fc3.weight"), ("conv5.0.weight", "linear3.weight")]
    return any(names <= state.keys() for names in map(set, kinds)) and not any(n.startswith("fp") for n in state)


@torch.no_grad()
def family_model(state: Mapping[str, Tensor]) -> Family:
    """The model with the weights of a state dict that `is_of_family`. KeyError, ValueError where it is another."""
    state = dict(state)
    model, names, turned = _pointnet2(state) if "fc3.weight" in state else _dgcnn(state)
    layers = [each for each in model.modules() if isinstance(each, nn.Conv1d | nn.Linear)]
    norms = [each for each in model.modules() if isinstance(each, nn.BatchNorm1d)]
    for layer, norm, (linear, after) in zip(layers, [*norms, None], names, strict=True):
        weight = state.pop(f"{linear}.weight")
        wanted = layer.weight.shape[:2]
        if weight.flatten(1).shape != wanted:
            raise ValueError(f"{linear}.weight must be {tuple(wanted)}, got {tuple(weight.shape)}")
        layer.weight.copy_(weight.flatten(1).roll(turned.get(linear, 0), 1).view_as(layer.weight))
        if norm is None:
            model.logits.bias.copy_(state.pop(f"{linear}.bias"))
            continue
        bias = state.pop(f"{linear}.bias", torch.zeros(()))
        state.setdefault(f"{after}.num_batches_tracked", torch.tensor(0))  # the oldest files lack it
        state[f"{after}.running_mean"] = state[f"{after}.running_mean"] - bias
        norm.load_state_dict({name: state.pop(f"{after}.{name}") for name in norm.state_dict()})
    if state:
        raise ValueError(f"no network of theirs has {next(iter(state))}")
    return model


def _pointnet2(state: dict[str, Tensor]) -> tuple[Family, Names, dict[str, int]]:
    """An untrained model, their names, and by how much the columns of some weights are rolled."""
    multi = "sa1.conv_blocks.0.0.weight" in state
    scales, names, turned = "multi" if multi else "single", Names(), dict[str, int]()
    for level, (_, each) in enumerate(LEVELS[scales], 1):
        for scale, (_, _, widths) in enumerate(each):
            linear, norm = (f"sa{level}.{kind}" for kind in ("mlp_convs", "mlp_bns"))
            if multi:
                linear, norm = (f"sa{level}.{kind}.{scale}" for kind in ("conv_blocks", "bn_blocks"))
                turned[f"{linear}.0"] = 3  # the coordinates, which come last
            names += [(f"{linear}.{i}", f"{norm}.{i}") for i in range(len(widths))]
    names += [(f"sa3.mlp_convs.{i}", f"sa3.mlp_bns.{i}") for i in range(3)]
    names += [("fc1", "bn1"), ("fc2", "bn2"), ("fc3", "")]
    return PointNet2Classifier(len(state["fc3.weight"]), state[f"{names[0][0]}.weight"].shape[1], scales), names, turned


def _dgcnn(state: dict[str, Tensor]) -> tuple[Family, Names, dict[str, int]]:
    """As `_pointnet2`. Their state has the norms of shared layers twice, as `bn1` and as `conv1.1`."""
    for name in [name for name in state if re.match(r"conv\d\.1\.", name)]:
        state[f"bn{name[4]}{name[7:]}"] = state.pop(name)
    names = [(f"conv{i}.0", f"bn{i}") for i in range(1, 6)] + [("linear1", "bn6"), ("linear2", "bn7"), ("linear3", "")]
    turned = {name: state[f"{name}.weight"].shape[1] // 2 for name, _ in names[:4]}
    return DGCNNClassifier(len(state["linear3.weight"]), turned["conv1.0"]), names, turned


@torch.no_grad()
def exchange_y_and_z(model: Family, order: list[int]) -> None:
    """Changes the weights so that the model computes the same from points whose y and z are exchanged: distances stay.

    order: that of a point's channels then; of a PointNet++ the coordinates of later levels change too.
    """
    for weight, columns in _takers_of_points(model, order):
        weight[:, : len(columns)] = weight[:, columns]


def _takers_of_points(model: Family, order: list[int]) -> Iterable[tuple[Tensor, list[int]]]:
    """The weights that take coordinates, and their columns in the new order."""
    layers: Any = [*(model.edges if isinstance(model, DGCNNClassifier) else model.abstractions)]
    if isinstance(model, DGCNNClassifier):
        return [(layers[0].layer.conv.weight, [*order, *(i + len(order) for i in order)])]
    return [(mlp[0].conv.weight, order[: 3 if i else None]) for i, each in enumerate(layers) for mlp in each.mlps]
