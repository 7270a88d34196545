"""Weights of the widely used PyTorch ports of PointNet, as models of ours that compute the same.

Known are the networks of yanx27/Pointnet_Pointnet2_pytorch (classifier, parts, scenes), fxia22/pointnet.pytorch
(classifier, `PointNetDenseCls`), vinits5/learning3d (`feature_model.conv1`, `linear1`) and of WangYueFt/dgcnn
(`PointNet`: `conv1`, `linear1`), what was made from them with the same names, and their encoders alone. Their names
become those of the first (`feat.stn.conv1.weight`, ...). Of PointNet++, DGCNN and PointNeXt see `family_ports`. They
differ from the published networks:

- the first two have three shared layers, 64 | 128, 1024 (for parts five), and no ReLU before the max: ordinary options
  of `PointNetEncoder`; the other two have five layers and no T-Net;
- a bias before each batch norm: here it is subtracted from the norm's running mean;
- T-Nets whose forward adds the identity: here it is in the bias;
- log-probabilities out, ours are logits: `log_softmax(1)` of ours is theirs, transposed where points are labelled;
- the head of a segmenter takes the cloud's feature first, then the channels of each point: here its columns move;
- dropout before the head's last norm, not after its ReLUs: the same in eval, not in further training.
"""

import errno
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate, count, takewhile
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor, nn

from pointnet.files import AnyPath, check_regular
from pointnet.names import printable

from .encoder import PointNetEmbedder, PointNetModel
from .family_ports import Family, exchange_y_and_z, family_model, is_of_family
from .pointnet import PointNetClassifier
from .pretrained import no_larger_than
from .segmentation import PointNetPartSegmenter, PointNetSegmenter
from .weights import check_numbers

# Where our names begin so, theirs begin so; behind that, theirs are numbered in the order of the layers.
PREFIXES = {"encoder.input_tnet.": "feat.stn.", "encoder.feature_tnet.": "feat.fstn.", "encoder.mlp": "feat.", "": ""}
KINDS: dict[type[nn.Module], str] = {nn.Conv1d: "conv", nn.Linear: "fc", nn.BatchNorm1d: "bn"}
WRAPPERS = ("model_state_dict", "state_dict", "model", "net", "network")  # of the state dict in a checkpoint
LEADING = re.compile(r"^((module|_orig_mod|model|net|model_ema|ema)\.)+")  # what they put before the names
# Clouds they are trained on, unless their user chose otherwise.
NUM_POINTS = {PointNetPartSegmenter: 2048, PointNetSegmenter: 4096}
SCENE_CHANNELS = ("x", "y", "z", "r", "g", "b", "x share", "y share", "z share")
MOST_OF_SIZE = 10  # times the bytes of a file, its weights take; tensors may share some
# Networks of other kinds, by a name that they have in a state dict.
OTHERS = {
    r"fp\d\.": "a PointNet++ that labels points",
    r"sa\d\.(mlp_convs|conv_blocks|mlps?)\.|SA_modules\.": "a PointNet++ that is no classifier of yanx27's port",
    r"conv\d\.0\.weight": "a DGCNN that is no classifier of the released form",
    r"encoder\.encoder\.\d": "a PointNeXt that is no classifier, or another network of OpenPoints",
    r"pre_blocks_list\.": "a PointMLP",
    r".*(q_conv|attn|transformer)": "a transformer of points",
    r"encoder\.mlp1\.layers\.": "the weights of this library's own network; build it and use load_state_dict",
}


def load_port(
    path: AnyPath,
    classes: Sequence[str] = (),
    up: str = "z",
    parts: Mapping[str, Sequence[str]] | None = None,
    normalize_dp: bool = True,
) -> PointNetModel | Family:
    """The network whose state dict a port saved, as a model of ours; in eval mode, in float32, on the CPU.

    A classifier is a `PointNetClassifier`, an encoder alone a `PointNetEmbedder`. A segmenter of 9 channels is one of
    scenes, any other one of parts: of those of one category without a name, if the port's takes no category.

    No code that the file may hold is run.

    Args:
        path: what the port wrote: a state dict, or a checkpoint that holds one by a name in `WRAPPERS`.
        classes: their names, in the order of the port's labels; empty for "class 0", "class 1", ...
        up: the up axis of the clouds the port was trained on. "z": the model takes points as the port's network does.
            "y": it takes the same points with y and z exchanged, and normals too, as this library reads ModelNet's
            HDF5 and text releases and ShapeNetPart, which have y up.
        parts: category -> its parts, in the order of the labels, for a network of as many categories and parts.
        normalize_dp: of a PointNeXt, that setting of its `group_args`: whether the coordinates in a ball are divided by
            its radius. Code that knows `normalize_dp` ignores `normalize_xyz`, which is False then.

    Raises:
        ValueError: another kind of file, a damaged one, another network, two networks, or numbers that no network
            computes with; the message names the file. Names for more or fewer classes than it has.
    """
    if up not in ("y", "z"):
        raise ValueError(f"up must be y or z, got '{up}'")
    path = Path(path)
    state = _read_state(path)
    of_family = is_of_family(state)
    try:
        sizes = [*map(len, (parts or {}).values())]
        with no_larger_than(state):
            model: Any = family_model(state, normalize_dp) if of_family else _model_of(_common_names(state), sizes)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        kind = "PointNet, DGCNN or PointNeXt" if of_family else "PointNet"
        raise ValueError(f"{path}: not a {kind} of a known port: {printable(' '.join(str(reason).split()))}") from error
    if classes and len(classes) != model.num_outputs:
        raise ValueError(f"{path}: has {model.num_outputs} classes, got {len(classes)} names")
    if up == "y" and isinstance(model, PointNetSegmenter):
        raise ValueError(f"{path}: is a network of scenes, which have z up; leave out --up y")
    if up == "y":
        _exchange_y_and_z(model)
    names = [f"class {label}" for label in range(model.num_outputs)]
    model.preprocessing = _contract_of(model)
    if isinstance(model, PointNetPartSegmenter) and model.parts_of and parts:
        names = [f"{category}/{part}" for category, each in parts.items() for part in each]
        model.preprocessing["categories"] = [*parts]
    model.classes = tuple(classes) or tuple(names)
    return model.eval()


def _contract_of(model: PointNetModel | Family) -> dict[str, Any]:
    """What the ports' own training scripts do with points."""
    known = {"frame": "z up, right-handed", "num_points": NUM_POINTS.get(type(model), 1024)}
    if isinstance(model, PointNetSegmenter):
        return known | {"channels": [*SCENE_CHANNELS], "centre": False, "scale": "blocks of a metre"}
    channels = model.arguments["in_channels"]
    others = ("nx", "ny", "nz") if channels == 6 else [f"channel {i}" for i in range(3, channels)]
    known |= {"channels": ["x", "y", "z", *others], "centre": True, "scale": "unit sphere"}
    if isinstance(model, PointNetPartSegmenter) and model.head_takes == "released":
        known["categories"] = [f"category {i}" for i in range(model.num_categories)]
        known["needs_category"] = True
    return known


class _Ignored:
    """Stands for what a checkpoint holds beside the weights, an accuracy or options: nothing is called to read it."""

    def __init__(self, *arguments: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


NUMPY = ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
IGNORED: list[Any] = [(_Ignored, name) for name in (*NUMPY, "argparse.Namespace")]


def _read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of `torch.save`, without the prefixes that wrappers of a network give its names."""
    try:
        size = check_unpacked(path)
        with torch.serialization.safe_globals(IGNORED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # damaged files make the unpickler raise any kind
        code, wanted = re.search(r"GLOBAL (\S+)", str(error)), "in the port, save the network's state_dict()"
        if code or "TorchScript" in str(error):
            kind = f"{code[1]}, which is code" if code else "a TorchScript program"
            raise ValueError(f"{path}: holds {kind}; only weights are read: {wanted}") from error
        raise ValueError(f"{path}: damaged, or not a file that torch.save writes") from error
    held = content
    if isinstance(content, Mapping):
        held = next((content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)), content)
        maps = [name for name, value in content.items() if isinstance(value, Mapping)]
        if len(states := [str(name) for name in maps if {*map(type, content[name].values())} == {Tensor}]) > 1:
            raise ValueError(f"{path}: holds the networks {printable(', '.join(states))}; save the one that is meant")
    if not isinstance(held, Mapping) or not all(isinstance(value, Tensor) for value in held.values()):
        found = f", but {', '.join(map(str, list(held)[:5]))}" if isinstance(held, Mapping) else ""
        if isinstance(held, Mapping) and "param_groups" in held:
            found = ", but that of an optimizer; the network's is what is wanted"
        raise ValueError(f"{path}: holds no state dict, tensors by their names{found}")
    if (total := sum(tensor.numel() * tensor.element_size() for tensor in held.values())) > MOST_OF_SIZE * size:
        raise ValueError(f"{path}: its {size:,} bytes stand for {total:,}, as its tensors repeat what it holds")
    try:
        return _unwrapped(held)
    except ValueError as error:
        raise ValueError(f"{path}: {printable(str(error))}") from error


def _unwrapped(held: Mapping[Any, Tensor]) -> dict[str, Tensor]:
    """The tensors by the network's own names. ValueError for another kind of network, and by `check_numbers`."""
    state = _renamed(held, lambda name: LEADING.sub("", name))
    for pattern, kind in OTHERS.items() if not is_of_family(state) else ():
        if any(re.match(pattern, name) for name in state):
            raise ValueError(f"holds {kind}; only networks of known ports are converted")
    check_numbers(state)
    return state


def _renamed(state: Mapping[Any, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    """The tensors by new names. ValueError where two would get the same, as those of a network and of its average."""
    renamed, before = dict[str, Tensor](), dict[str, str]()
    for old, tensor in state.items():
        new = rename(str(old))
        if new in before:
            raise ValueError(f"holds {before[new]} and {old}, two weights for {new}; save one of the two networks")
        renamed[new], before[new] = tensor, str(old)
    return renamed


def check_unpacked(path: Path) -> int:
    """The size of a file; OSError where it is no regular one, or an archive of much more than that."""
    check_regular(path)
    size, unpacked = path.stat().st_size, 0
    with suppress(BadZipFile), ZipFile(path) as archive:  # what is no archive is left to PyTorch
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > MOST_OF_SIZE * size:
        raise OSError(errno.EFBIG, f"its {size:,} bytes unpack to {unpacked:,}", os.fspath(path))
    return size


def _common_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict by the first port's names: those of the encoder begin with "feat.", the head's are conv, fc, bn.

    A network of layers with biases and without norms or T-Nets, as learning3d's may be, gets norms that change nothing.
    """
    named = _renamed(state, lambda name: re.sub("^linear", "fc", re.sub("^feature_model", "feat", name)))
    if not any(name.startswith("feat.") for name in named):
        layers = len(_widths(named, "conv"))
        if layers == 3 and "stn.conv1.weight" not in named:
            raise ValueError("three layers without a T-Net do not tell whether a ReLU stands before the max")
        named = _renamed(named, lambda name: _by_level(name, layers))
    elif any(name.startswith("feature_model.") for name in state) and len(_widths(named, "feat.conv")) != 5:
        raise ValueError("a feature_model of theirs has five layers")
    has_norms = any(re.match(r"feat\.(bn|stn|fstn)", name) for name in named)
    if not has_norms and "feat.conv1.bias" in named:
        for i, width in enumerate(_widths(named, "feat.conv"), 1):
            one, zero = torch.ones(width), torch.zeros(width)
            norm = {"weight": one, "bias": zero, "running_mean": zero, "running_var": one - nn.BatchNorm1d(1).eps}
            named |= {f"feat.bn{i}.{name}": each for name, each in norm.items()}
    return named


def _by_level(name: str, layers: int) -> str:
    """The common name for a name where the encoder, of so many layers, has no name of its own."""
    kind, number, rest = re.findall(r"^([a-z_]*)(\d*)(.*)", name, re.DOTALL)[0]
    if kind in ("convs", "bns"):
        return f"{kind[:-1]}{number}{rest}"
    if kind == "bn" and int(number or 0) > layers:  # numbered after the encoder's
        return f"bn{int(number) - layers}{rest}"
    return f"feat.{name}" if kind in ("conv", "bn", "stn", "fstn") else name


def _widths(state: Mapping[str, Tensor], kind: str) -> list[int]:
    """How many channels the layers kind1, kind2, ... give."""
    names = (f"{kind}{i}.weight" for i in count(1))
    return [len(state[name]) for name in takewhile(state.__contains__, names)]


def _encoder_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of the encoder, as all our networks take them."""
    widths, tnets = _widths(state, "feat.conv"), {}
    for name in ("stn", "fstn"):
        if f"feat.{name}.fc1.weight" in state:
            tnets[name] = [_widths(state, f"feat.{name}.conv"), _widths(state, f"feat.{name}.fc")[:-1]]
    is_of_parts = len(widths) == 5 and "fstn" in tnets and "conv1.weight" in state
    if len(widths) not in (3, 5) or (len(widths) == 5 and tnets and not is_of_parts):
        kind = f"its encoder has {len(widths)} shared layers{' and T-Nets' if tnets else ''}"
        raise ValueError(f"{kind}; its first tensors are {', '.join(list(state)[:3]) or 'none'}")
    if len(tnets) == 2 and tnets["stn"] != tnets["fstn"]:
        raise ValueError(f"its T-Nets have different widths, {tnets['stn']} and {tnets['fstn']}; ours have the same")
    before = 3 if is_of_parts else len(widths) // 2
    return {
        "in_channels": state["feat.conv1.weight"].shape[1],
        "input_transform": "stn" in tnets,
        "feature_transform": "fstn" in tnets,
        "widths": [widths[:before], widths[before:]],
        "last_activation": len(widths) == 5 and not tnets,
        **({"tnet_widths": next(iter(tnets.values()))} if tnets else {}),
    }


def _untrained(state: dict[str, Tensor], sizes: Sequence[int]) -> PointNetModel:
    """The model of ours whose layers are theirs; a segmenter's first weight gets our order of columns in the state.

    Args:
        sizes: how many parts each category has, for a network of as many.
    """
    encoder, scores = _encoder_of(state), _widths(state, "fc")
    if scores:
        return PointNetClassifier(num_classes=scores[-1], head_widths=scores[:-1], **encoder)
    if "conv1.weight" not in state:
        return PointNetEmbedder(**encoder)
    *head, outputs = _widths(state, "conv")
    before, after = encoder["widths"]
    is_of_parts = len(before) == 3
    per_point = sum(before + after) if is_of_parts else before[-1]
    weight = state["conv1.weight"].roll(per_point, 1)  # theirs have the cloud's columns first
    state["conv1.weight"] = weight
    if not is_of_parts and encoder["in_channels"] == len(SCENE_CHANNELS):
        return PointNetSegmenter(num_classes=outputs, head_widths=head, **encoder)
    if not is_of_parts:  # ours has a category too, here one that changes nothing
        state["conv1.weight"] = torch.cat([weight, weight.new_zeros(len(weight), 1, 1)], 1)
        return PointNetPartSegmenter(outputs, 1, head_widths=head, head_takes="aligned", **encoder)
    categories, ends = weight.shape[1] - per_point - after[-1], [*accumulate(sizes)]
    fits = len(sizes) == categories and ends[-1] == outputs
    parts_of = [range(end - size, end) for size, end in zip(sizes, ends, strict=True)] if fits else None
    how: dict[str, Any] = {"parts_of": parts_of, "head_widths": head, "head_takes": "released"}
    return PointNetPartSegmenter(outputs, categories, **how, **encoder)


def _model_of(state: dict[str, Tensor], sizes: Sequence[int]) -> PointNetModel:
    """A model of ours with the weights of a state dict in common names, which is empty afterwards."""
    model = _untrained(state, sizes)
    converted, counts, bias = dict[str, Tensor](), Counter[str](), torch.zeros(())
    for ours, module in model.named_modules():
        if type(module) not in KINDS:
            continue
        kind = next(PREFIXES[prefix] for prefix in PREFIXES if ours.startswith(prefix)) + KINDS[type(module)]
        counts[kind] += 1
        theirs = f"{kind}{counts[kind]}"
        if isinstance(module, nn.BatchNorm1d):
            state.setdefault(f"{theirs}.num_batches_tracked", torch.tensor(0))  # the oldest files lack it
            state[f"{theirs}.running_mean"] = state[f"{theirs}.running_mean"].double() - bias.double()
        elif module.bias is None:
            bias = state.pop(f"{theirs}.bias", torch.zeros(()))
        converted |= {f"{ours}.{name}": state.pop(f"{theirs}.{name}") for name in module.state_dict()}
    if state:
        raise ValueError(f"no network of theirs has {next(iter(state))}")
    model.load_state_dict(converted)
    for tnet in (model.encoder.input_tnet, model.encoder.feature_tnet):
        if tnet is not None:
            tnet.matrix.bias.detach().add_(torch.eye(tnet.dim).flatten())
    return model


@torch.no_grad()
def _exchange_y_and_z(model: PointNetModel | Family) -> None:
    """Changes the weights so that the model computes the same from points whose y and z are exchanged.

    With P the exchange, W (T^T P x) = (W P) (P T^T P) x: P moves into the first weights, and around the matrix.
    """
    order = list(range(model.arguments["in_channels"]))
    order[1:3] = 2, 1
    if len(order) == 6:
        order[4:6] = 5, 4
    if not isinstance(model, PointNetModel):
        exchange_y_and_z(model, order)
        return
    tnet, first = model.encoder.input_tnet, [model.encoder.mlp1[0].conv.weight]
    if tnet is not None:
        first.append(tnet.mlp[0].conv.weight)
        for parameter in (tnet.matrix.weight, tnet.matrix.bias):
            rows = parameter.unflatten(0, (3, 3))
            parameter.copy_(rows[order[:3]][:, order[:3]].flatten(0, 1))
    for weight in first:
        weight.copy_(weight[:, order])
