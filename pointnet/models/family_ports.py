"""Weights of the widely used PyTorch forms of PointNet++, DGCNN and PointNeXt, as models of ours that compute the same.

Known are the classifiers of yanx27/Pointnet_Pointnet2_pytorch (`pointnet2_cls_ssg`, `pointnet2_cls_msg`: `sa1`, `fc1`),
of WangYueFt/dgcnn and AnTao97/dgcnn.pytorch (`DGCNN`, `DGCNN_cls`: `conv1.0`, `linear1`), and of guochengqian/PointNeXt
with OpenPoints (`pointnext-s.yaml`: `encoder.encoder.0.0.convs`, `prediction.head`), of the published widths. They
differ from ours:

- with several scales a point's features come before its coordinates, and in an edge x_j - x_i before x_i: here columns
  move;
- a bias before a batch norm: here it is subtracted from the norm's running mean;
- PointNet++ gives log-probabilities: `log_softmax(1)` of ours is theirs;
- its first centre is a random point, here the first; a ball has the points at its rim too;
- DGCNN's file does not hold the number of neighbours: here their default, 20;
- PointNeXt's holds neither radii nor neighbours: here those of its settings. Nor does it say whether coordinates in a
  ball are divided by its radius (`normalize_dp`): ours are, so where theirs are not, their columns are multiplied by
  it. Sampling and balls are as here, but for points of the same distance.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pointnet.layers.set_abstraction import SetAbstraction
from pointnet.layers.shared_mlp import SharedMLP

from .dgcnn import DGCNNClassifier
from .pointnet2 import LEVELS, PointNet2Classifier
from .pointnext import STEM_WIDTH, PointNextClassifier

Family = PointNet2Classifier | DGCNNClassifier | PointNextClassifier
LayerNames = list[tuple[str, str]]  # of each linear layer and of its norm, in order; "" for none, then it has a bias
NEXT, NEXT_HEAD = "encoder.encoder.0.0.convs.0.0.weight", "prediction.head.0.0.weight"


def is_of_family(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the names of one of these classifiers."""
    kinds = [("sa3.mlp_convs.0.weight", "fc3.weight"), ("conv5.0.weight", "linear3.weight"), (NEXT, NEXT_HEAD)]
    return any(names <= state.keys() for names in map(set, kinds)) and not any(n.startswith("fp") for n in state)


@torch.no_grad()
def family_model(state: Mapping[str, Tensor], by_radius: bool = True) -> Family:
    """The model with the weights of a state dict that `is_of_family`. KeyError, ValueError where it is another.

    by_radius: whether a PointNeXt's coordinates in a ball were divided by its radius.
    """
    state = dict(state)
    untrained = _pointnext if NEXT in state else _pointnet2 if "fc3.weight" in state else _dgcnn
    model, names, turned = untrained(state)
    layers = [each for each in model.modules() if isinstance(each, nn.Conv1d | nn.Linear)]
    norms = iter([each for each in model.modules() if isinstance(each, nn.BatchNorm1d)])
    for layer, (linear, after) in zip(layers, names, strict=True):
        weight = state.pop(f"{linear}.weight")
        wanted = layer.weight.shape[:2]
        if weight.flatten(1).shape != wanted:
            raise ValueError(f"{linear}.weight must be {tuple(wanted)}, got {tuple(weight.shape)}")
        layer.weight.copy_(weight.flatten(1).roll(turned.get(linear, 0), 1).view_as(layer.weight))
        if not after:
            assert layer.bias is not None
            layer.bias.copy_(state.pop(f"{linear}.bias"))
            continue
        norm = next(norms)
        bias = state.pop(f"{linear}.bias", torch.zeros(()))
        state.setdefault(f"{after}.num_batches_tracked", torch.tensor(0))  # the oldest files lack it
        state[f"{after}.running_mean"] = state[f"{after}.running_mean"].double() - bias.double()
        norm.load_state_dict({name: state.pop(f"{after}.{name}") for name in norm.state_dict()})
    if state:
        raise ValueError(f"no network of theirs has {next(iter(state))}")
    if isinstance(model, PointNextClassifier) and not by_radius:
        for level, weight in zip(_abstractions(model), _first_weights(model), strict=True):
            weight[:, :3] *= level.radii[0] if level.radii else 1
    return model


def _pointnet2(state: dict[str, Tensor]) -> tuple[Family, LayerNames, dict[str, int]]:
    """An untrained model, their names, and by how much the columns of some weights are rolled."""
    multi = "sa1.conv_blocks.0.0.weight" in state
    scales, names, turned = "multi" if multi else "single", LayerNames(), dict[str, int]()
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


def _dgcnn(state: dict[str, Tensor]) -> tuple[Family, LayerNames, dict[str, int]]:
    """As `_pointnet2`. Their state has the norms of shared layers twice, as `bn1` and as `conv1.1`."""
    for name in [name for name in state if re.match(r"conv\d\.1\.", name)]:
        norm = f"bn{name[4]}{name[7:]}"
        if not torch.equal(state.setdefault(norm, state[name]), state.pop(name)):
            raise ValueError(f"{name} and {norm} are the same tensor in theirs, and differ here")
    names = [(f"conv{i}.0", f"bn{i}") for i in range(1, 6)] + [("linear1", "bn6"), ("linear2", "bn7"), ("linear3", "")]
    turned = {name: state[f"{name}.weight"].shape[1] // 2 for name, _ in names[:4]}
    return DGCNNClassifier(len(state["linear3.weight"]), turned["conv1.0"]), names, turned


def _pointnext(state: dict[str, Tensor]) -> tuple[Family, LayerNames, dict[str, int]]:
    """As `_pointnet2`. A block is the index of a stage and of a block within it, then of a layer and of what is in it:
    linear map, norm. Dropout takes a place among the layers of the head."""
    head = sorted({int(name.split(".")[2]) for name in state if name.startswith("prediction.head.")})
    if len(head) != 3:
        raise ValueError(f"prediction.head has {len(head)} layers, a known port's has 3")
    names = [("encoder.encoder.0.0.convs.0.0", "")]
    for level in range(1, 6):
        layers = [f"encoder.encoder.{level}.0.convs.{i}" for i in range(2)]
        names += [(f"{layer}.0", f"{layer}.1") for layer in layers]
        names += [(f"encoder.encoder.{level}.0.skipconv.0", "")] if level < 5 else []
    names += [(f"prediction.head.{i}.0", f"prediction.head.{i}.1") for i in head[:-1]]
    names += [(f"prediction.head.{head[-1]}.0", "")]
    (channels, in_channels), classes = state[NEXT].shape[:2], len(state[f"{names[-1][0]}.weight"])
    return PointNextClassifier(classes, in_channels, width=channels / STEM_WIDTH), names, {}


def _abstractions(model: PointNet2Classifier | PointNextClassifier) -> list[SetAbstraction]:
    return [each for each in model.abstractions if isinstance(each, SetAbstraction)]


def _first_weights(model: PointNet2Classifier | PointNextClassifier) -> list[Tensor]:
    """Those that take the coordinates of a neighbourhood, one for each scale."""
    return [mlp[0].conv.weight for each in _abstractions(model) for mlp in each.mlps if isinstance(mlp, SharedMLP)]


@torch.no_grad()
def exchange_y_and_z(model: Family, order: list[int]) -> None:
    """Changes the weights so that the model computes the same from points whose y and z are exchanged: distances stay.

    order: that of a point's channels then; of a PointNet++ or PointNeXt the coordinates of later levels change too.
    """
    for weight, columns in _takers_of_points(model, order):
        weight[:, : len(columns)] = weight[:, columns]


def _takers_of_points(model: Family, order: list[int]) -> Iterable[tuple[Tensor, list[int]]]:
    """The weights that take coordinates, and their columns in the new order."""
    if isinstance(model, DGCNNClassifier):
        edge: Any = model.edges[0]
        return [(edge.layer.conv.weight, [*order, *(i + len(order) for i in order)])]
    if isinstance(model, PointNextClassifier):
        return [(model.stem[0].conv.weight, order), *((weight, order[:3]) for weight in _first_weights(model))]
    scales = len(_abstractions(model)[0].mlps)
    return [(weight, order[: None if i < scales else 3]) for i, weight in enumerate(_first_weights(model))]
