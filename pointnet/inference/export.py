"""A trained model as one file that runs without this library: ONNX, or PyTorch's own exported program.

The file holds the folded model (identity 8), for any number of clouds and points, and the model's contract. Before it
is written, its content is run and compared with the model, and with what the library answers for whole clouds.
"""

import copy
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from pointnet.evaluation.contract import Contract
from pointnet.evaluation.tasks import task_of
from pointnet.extras import MissingExtraError
from pointnet.files import AnyPath, write_atomically
from pointnet.models import DGCNNClassifier, DGCNNPartSegmenter, PartLabels, PointNetModel

from .cases import Case, cases_of

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}  # by format
SIZES = ((1, 1), (1, 50), (7, 2048), (32, 1024))  # (B, N) at which the file is compared with the model
TOLERANCE = 1e-4  # of a logit, or of the largest logit if that is above 1
# Of a network that searches neighbours among features, some of the compared clouds may have two that are as near but
# for rounding: sums in another order take the other one. As often does the same network in float64.
SEARCHES, NEAR_TIE, SHARE = (DGCNNClassifier, DGCNNPartSegmenter), 0.05, 0.25
INPUTS, OUTPUT = ("points", "category"), "logits"
METADATA_FILE = "metadata.json"  # within a .pt2


def export_model(model: PointNetModel, path: AnyPath, format: str = "onnx") -> float:
    """Writes `model` in eval mode: points (B, C, N) float32 -> its logits, for any B and N above 0 (of DGCNN, N
    above the neighbours).

    The logits are (B, num_classes), or (B, num_classes, N) for a segmenter. A file for parts takes a second input,
    category (B,) int64, -1 where it is not known; its logits are -inf for parts that a category does not have, as
    `label_points` takes them, and NaN for a category below -1, or below 0 where the network needs it. The file also
    holds `classes`, in the order of the logits, and all of the model's contract (`Contract.as_json`), each as JSON: as
    ONNX metadata, or in the extra file `metadata.json` of a .pt2, which `torch.export.load` reads. The softmax of the
    logits divided by `temperature` are the library's probabilities.

    Returns the largest error of the file's logits at `SIZES` and for solids, in the unit of `TOLERANCE`. For solids
    (`cases.SOLIDS`, of a network for parts each category) its answers are the library's too. Of DGCNN a quarter of
    these clouds may be off by up to 0.05 in that unit, and their answers by as much: where two neighbours are as near
    but for rounding, the file may take the other one.

    Args:
        format: "onnx" (standard operators only), or "torch" for a .pt2 (PyTorch's own operators only).

    Raises:
        ValueError: an unknown format, or a model without a contract or logits, or one that is not exported; or the
            file's logits or answers are not the model's, and nothing is written.
        MissingExtraError: the packages of the extra `export` are not installed.
        OSError: the file cannot be written.
    """
    if format not in SUFFIXES:
        raise ValueError(f"format must be {' or '.join(SUFFIXES)}, got '{format}'")
    task_of(model)  # an encoder alone has no logits
    if model.not_exported:
        raise ValueError(f"{path}: not written: {type(model).__name__} is not exported: {model.not_exported}")
    path, reference, contract = Path(path), copy.deepcopy(model).cpu().float().eval(), Contract.of(model)
    reference.requires_grad_(False)
    to_content, to_runner = {"onnx": (_to_onnx, _run_onnx), "torch": (_to_torch, _run_torch)}[format]
    items = {"classes": list(model.classes), **contract.as_json()}
    with _quiet():
        content = to_content(reference, {name: json.dumps(value) for name, value in items.items()})
        run, whole, errors = to_runner(content), _asked(reference), list[float]()
        may_tie = isinstance(reference, SEARCHES)
        for case in chain(_drawn(reference), cases_of(reference)):
            with torch.no_grad():
                wanted, got = whole(*case.inputs), run(*case.inputs)
            one_by_one = may_tie and got.shape == wanted.shape
            for ours, its in zip(wanted.split(1), got.split(1), strict=True) if one_by_one else [(wanted, got)]:
                error, off = _errors(case, ours, its, contract.temperature)
                allowed = TOLERANCE if error <= TOLERANCE or not may_tie else NEAR_TIE
                size = "({}, {})".format(*case.inputs[0].shape[::2])
                if not error <= allowed:
                    raise ValueError(f"{path}: not written: at {size} its logits are off by {error:.1e}")
                if not off <= allowed:
                    raise ValueError(f"{path}: not written: at {size} its answer is not the library's")
                errors.append(error)
    if (ties := sum(error > TOLERANCE for error in errors)) > SHARE * len(errors):
        raise ValueError(
            f"{path}: not written: for {ties} of {len(errors)} clouds its logits are off, by {max(errors):.1e}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return max(errors)


def what_it_takes(model: PointNetModel) -> str:
    """The inputs of the exported file, in one line."""
    contract = Contract.of(model)
    line = f"points (B, {len(contract.channels)}, N) float32: {', '.join(contract.channels)}; {contract}"
    if isinstance(model, PartLabels):
        unknown = "" if contract.needs_category else ", or -1 where it is not known"
        line += f"; category (B,) int64: 0 to {model.num_categories - 1}{unknown}"
    if isinstance(model, SEARCHES):
        line += f"; {contract.num_points:,} points of each cloud, as in training: drawn, or all repeated equally often"
    return f"{line}; N of at least {model.least_points}" if model.least_points > 1 else line


def _drawn(model: PointNetModel) -> Iterator[Case]:
    """Random numbers at each of `SIZES`, and categories in turn."""
    generator = torch.Generator().manual_seed(0)
    for clouds, points in SIZES:
        points = max(points, model.least_points)
        x = 2 * torch.rand(clouds, model.arguments["in_channels"], points, generator=generator) - 1
        if isinstance(model, PartLabels):
            least = _least_category(model)
            yield Case((x, torch.arange(clouds) % (model.num_categories - least) + least))
        else:
            yield Case((x,))


def _errors(case: Case, wanted: Tensor, got: Tensor, temperature: float) -> tuple[float, float]:
    """The largest error of the logits that are not -inf, and of the library's answer, both in the unit of `TOLERANCE`.

    Labels may differ where two are as probable within the error that is allowed.
    """
    there = wanted != -torch.inf
    if got.shape != wanted.shape or not torch.equal(got != -torch.inf, there):
        return float("inf"), float("inf")
    scale = max(1.0, float(wanted[there].abs().max()))
    error = float((got - wanted)[there].abs().max()) / scale
    if case.labels is None or case.probability is None:
        return error, 0.0
    shares = (got / temperature).softmax(1)
    of_label = shares.gather(1, case.labels.unsqueeze(1)).squeeze(1)
    off = torch.maximum((of_label - case.probability).abs(), shares.amax(1) - of_label)
    return error, float(off.max()) * temperature / scale


class _Parts(nn.Module):
    """A network for parts as it is asked: the logits of the category's parts, NaN for a category below the least."""

    def __init__(self, network: PartLabels):
        super().__init__()
        self.network, self.least = network, _least_category(network)

    def forward(self, points: Tensor, category: Tensor) -> Tensor:
        logits = self.network.restrict(self.network(points, category), category)
        return logits.masked_fill((category < self.least).view(-1, 1, 1), torch.nan)


def _asked(model: PointNetModel) -> nn.Module:
    return _Parts(model) if isinstance(model, PartLabels) else model


def _least_category(model: PartLabels) -> int:
    return 0 if Contract.of(model).needs_category else -1


def _example(model: PointNetModel) -> tuple[tuple[Tensor, ...], Any]:
    """Inputs to trace with, and which of their sizes may vary; a size of 1 would be taken as fixed."""
    points, batch = torch.zeros(2, model.arguments["in_channels"], 16 + model.least_points), Dim("batch")
    some = Dim("points", min=model.least_points) if model.least_points > 1 else Dim("points")
    inputs, sizes = (points, torch.zeros(2, dtype=torch.int64)), ({0: batch, 2: some}, {0: batch})
    count = 2 if isinstance(model, PartLabels) else 1
    return inputs[:count], sizes[:count]


def _to_torch(model: PointNetModel, metadata: Mapping[str, str]) -> bytes:
    inputs, sizes = _example(model)
    program, stream = torch.export.export(_asked(model.fold()), inputs, dynamic_shapes=sizes), io.BytesIO()
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names folders of this machine
        if getattr(node.target, "namespace", "aten") != "aten":
            raise ValueError(f"not exported: {node.target} is not one of PyTorch's own operators")
    torch.export.save(program, stream, extra_files={METADATA_FILE: json.dumps(metadata)})
    return stream.getvalue()


def _run_torch(content: bytes) -> Callable[..., Tensor]:
    return torch.export.load(io.BytesIO(content)).module()


def _to_onnx(model: PointNetModel, metadata: Mapping[str, str]) -> bytes:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("exporting to ONNX", package, "export")
    inputs, sizes = _example(model)
    names = INPUTS[: len(inputs)]
    program = torch.onnx.export(
        _asked(model.fold()), inputs, dynamic_shapes=sizes, input_names=names, output_names=[OUTPUT], verbose=False
    )
    assert program is not None  # only the older exporter returns None
    proto = program.model_proto
    foreign = sorted({node.domain for node in (*proto.graph.node, *proto.functions)} - {""})
    if foreign:
        raise ValueError(f"not exported: operators of {', '.join(foreign)} are not standard ones")
    for described in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        described.ClearField("metadata_props")  # they name folders of this machine
    for name, value in metadata.items():
        proto.metadata_props.add(key=name, value=value)
    return proto.SerializeToString()


def _run_onnx(content: bytes) -> Callable[..., Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> Tensor:
        given = dict(zip(INPUTS, (each.numpy() for each in inputs), strict=False))
        return torch.from_numpy(session.run([OUTPUT], given)[0])

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides warnings of the exporters about themselves."""
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")
        for log in map(logging.getLogger, ("torch.onnx", "onnxscript")):
            stack.callback(log.setLevel, log.level)
            log.setLevel(logging.ERROR)
        yield
