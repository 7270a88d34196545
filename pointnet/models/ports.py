"""Weights of the widely used PyTorch ports of PointNet's classifier, as a model of ours that computes the same.

Two ports, yanx27/Pointnet_Pointnet2_pytorch and fxia22/pointnet.pytorch, and what was made from them, share one network
and its names (`feat.stn.conv1.weight`, ...). It differs from the published one:

- three shared layers, 64 | 128, 1024, and no ReLU before the max: ordinary options of `PointNetEncoder`;
- a bias before each batch norm: here it is subtracted from the norm's running mean;
- T-Nets whose forward adds the identity: here it is in the bias;
- log-probabilities out, ours are logits: `log_softmax(1)` of ours is theirs;
- dropout before the head's last norm, not after its ReLUs: the same in eval, not in further training.
"""

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pointnet.files import AnyPath

from .pointnet import PointNetClassifier

# Where our names begin so, theirs begin so; behind that, theirs are numbered in the order of the layers.
PREFIXES = {"encoder.input_tnet.": "feat.stn.", "encoder.feature_tnet.": "feat.fstn.", "encoder.mlp": "feat.", "": ""}
KINDS: dict[type[nn.Module], str] = {nn.Conv1d: "conv", nn.Linear: "fc", nn.BatchNorm1d: "bn"}
NUM_POINTS = 1024  # of the clouds they are trained on, unless their user chose otherwise


def load_port(path: AnyPath, classes: Sequence[str] = (), up: str = "z") -> PointNetClassifier:
    """The classifier whose state dict a port saved, as a model of ours; in eval mode, in float32, on the CPU.

    No code that the file may hold is run.

    Args:
        path: what the port wrote: a state dict, or a checkpoint that holds one as `model_state_dict`.
        classes: their names, in the order of the port's labels; empty for "class 0", "class 1", ...
        up: the up axis of the clouds the port was trained on. "z": the model takes points as the port's network does.
            "y": it takes the same points with y and z exchanged, and normals too, as this library reads ModelNet's
            HDF5 and text releases, which have y up.

    Raises:
        ValueError: another kind of file, a damaged one, or another network; the message names the file. Names for
            more or fewer classes than it has.
    """
    if up not in ("y", "z"):
        raise ValueError(f"up must be y or z, got '{up}'")
    path = Path(path)
    state = _read_state(path)
    try:
        model = _model_of(state)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: not the classifier of a known port: {' '.join(str(reason).split())}") from error
    if classes and len(classes) != model.num_outputs:
        raise ValueError(f"{path}: has {model.num_outputs} classes, got {len(classes)} names")
    if up == "y":
        _exchange_y_and_z(model)
    model.classes = tuple(classes) or tuple(f"class {label}" for label in range(model.num_outputs))
    count = model.arguments["in_channels"]
    others = ("nx", "ny", "nz") if count == 6 else [f"channel {i}" for i in range(3, count)]
    model.preprocessing = {
        "frame": "z up, right-handed",
        "num_points": NUM_POINTS,
        "channels": ["x", "y", "z", *others],
        "centre": True,
        "scale": "unit sphere",
    }
    return model.eval()


class _Ignored:
    """Stands for a NumPy scalar, such as the accuracy beside the weights: nothing of NumPy is called to read it."""

    def __init__(self, *arguments: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


NUMPY_SCALARS: list[Any] = [
    (_Ignored, name) for name in ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
]


def _read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of `torch.save`, without the prefix that DataParallel gives its names."""
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # damaged files make the unpickler raise any kind
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            wanted = "only weights are read: in the port, save the network's state_dict()"
            raise ValueError(f"{path}: holds {code[1]}, which is code; {wanted}") from error
        raise ValueError(f"{path}: damaged, or not a file that torch.save writes") from error
    if isinstance(content, Mapping):
        content = content.get("model_state_dict", content.get("state_dict", content))
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: holds no state dict, tensors by their names")
    state = {str(name).removeprefix("module."): value for name, value in content.items()}
    if "conv4.weight" in state or "convs1.weight" in state:
        raise ValueError(f"{path}: holds a network that segments; only classifiers are converted")
    if "sa1.mlp_convs.0.weight" in state or "sa1.conv_blocks.0.0.weight" in state:
        raise ValueError(f"{path}: holds a PointNet++; only PointNet's classifiers are converted")
    return state


def _model_of(state: dict[str, Tensor]) -> PointNetClassifier:
    """A model of ours with the weights of their state dict, which is empty afterwards."""
    model = PointNetClassifier(
        num_classes=len(state["fc3.bias"]),
        in_channels=state["feat.conv1.weight"].shape[1],
        input_transform="feat.stn.fc3.bias" in state,
        feature_transform="feat.fstn.fc3.bias" in state,
        widths=((64,), (128, 1024)),
        last_activation=False,
    )
    converted, counts, bias = dict[str, Tensor](), Counter[str](), torch.zeros(())
    for ours, module in model.named_modules():
        if type(module) not in KINDS:
            continue
        kind = next(PREFIXES[prefix] for prefix in PREFIXES if ours.startswith(prefix)) + KINDS[type(module)]
        counts[kind] += 1
        theirs = f"{kind}{counts[kind]}"
        if isinstance(module, nn.BatchNorm1d):
            state.setdefault(f"{theirs}.num_batches_tracked", torch.tensor(0))  # the oldest files lack it
            state[f"{theirs}.running_mean"] = state[f"{theirs}.running_mean"] - bias
        else:
            bias = state.pop(f"{theirs}.bias") if module.bias is None else state[f"{theirs}.bias"]
        converted |= {f"{ours}.{name}": state.pop(f"{theirs}.{name}") for name in module.state_dict()}
    if state:
        raise ValueError(f"no classifier of theirs has {next(iter(state))}")
    model.load_state_dict(converted)
    for tnet in (model.encoder.input_tnet, model.encoder.feature_tnet):
        if tnet is not None:
            tnet.matrix.bias.detach().add_(torch.eye(tnet.dim).flatten())
    return model


@torch.no_grad()
def _exchange_y_and_z(model: PointNetClassifier) -> None:
    """Changes the weights so that the model computes the same from points whose y and z are exchanged.

    With P the exchange, W (T^T P x) = (W P) (P T^T P) x: P moves into the first weights, and around the matrix.
    """
    order = list(range(model.arguments["in_channels"]))
    order[1:3] = 2, 1
    if len(order) == 6:
        order[4:6] = 5, 4
    tnet, first = model.encoder.input_tnet, [model.encoder.mlp1[0].conv.weight]
    if tnet is not None:
        first.append(tnet.mlp[0].conv.weight)
        for parameter in (tnet.matrix.weight, tnet.matrix.bias):
            rows = parameter.unflatten(0, (3, 3))
            parameter.copy_(rows[order[:3]][:, order[:3]].flatten(0, 1))
    for weight in first:
        weight.copy_(weight[:, order])
