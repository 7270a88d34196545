"""A trained model as one file that runs without this library: ONNX, or PyTorch's own exported program.

The file holds the folded model (identity 8), for any number of clouds and points. Before it is written, its content is
run and compared with the model.
"""

import copy
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim

from pointnet.extras import MissingExtraError
from pointnet.files import AnyPath, write_atomically
from pointnet.models import PointNetModel

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}  # by format
SIZES = ((1, 1), (1, 50), (7, 2048), (32, 1024))  # (B, N) at which the file is compared with the model
TOLERANCE = 1e-4  # of a logit, or of the largest logit if that is above 1
INPUT, OUTPUT = "points", "logits"
METADATA_FILE = "metadata.json"  # within a .pt2


def export_model(model: PointNetModel, path: AnyPath, format: str = "onnx") -> float:
    """Writes `model` in eval mode: points (B, C, N) float32 -> its logits, for any B and N above 0.

    The logits are (B, num_classes), or (B, num_classes, N) for a segmenter; a network for parts takes no category in
    the file. The file also holds `classes` (a JSON list, in the order of the logits) and `model.preprocessing`: as ONNX
    metadata, or in the extra file `metadata.json` of a .pt2, which `torch.export.load` reads.

    Returns the largest error of the file's logits at `SIZES`, in the unit of `TOLERANCE`.

    Args:
        format: "onnx" (standard operators only), or "torch" for a .pt2 (PyTorch's own operators only).

    Raises:
        ValueError: an unknown format; or the file's logits are not the model's, and nothing is written.
        MissingExtraError: the packages of the extra `export` are not installed.
        OSError: the file cannot be written.
    """
    if format not in SUFFIXES:
        raise ValueError(f"format must be {' or '.join(SUFFIXES)}, got '{format}'")
    path, reference = Path(path), copy.deepcopy(model).cpu().float().eval()
    to_content, to_runner = {"onnx": (_to_onnx, _run_onnx), "torch": (_to_torch, _run_torch)}[format]
    items = {"classes": list(model.classes), **model.preprocessing}
    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in items.items()}
    generator, errors = torch.Generator().manual_seed(0), []
    with _quiet():
        content = to_content(reference, metadata)
        run = to_runner(content)
        for clouds, points in SIZES:
            x = 2 * torch.rand(clouds, model.arguments["in_channels"], points, generator=generator) - 1
            with torch.no_grad():
                wanted, got = reference(x), run(x)
            scale = max(1.0, float(wanted.abs().max()))
            errors.append(float((got - wanted).abs().max()) / scale if got.shape == wanted.shape else float("inf"))
            if not errors[-1] <= TOLERANCE:
                raise ValueError(f"{path}: not written: at ({clouds}, {points}) its logits are off by {errors[-1]:.1e}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return max(errors)


def _example(model: PointNetModel) -> tuple[tuple[Tensor], Any]:
    """Points to trace with, and which of their sizes may vary; a size of 1 would be taken as fixed."""
    return (torch.zeros(2, model.arguments["in_channels"], 16),), ({0: Dim("batch"), 2: Dim("points")},)


def _to_torch(model: PointNetModel, metadata: Mapping[str, str]) -> bytes:
    points, sizes = _example(model)
    program, stream = torch.export.export(model.fold(), points, dynamic_shapes=sizes), io.BytesIO()
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names folders of this machine
        if getattr(node.target, "namespace", "aten") != "aten":
            raise ValueError(f"not exported: {node.target} is not one of PyTorch's own operators")
    torch.export.save(program, stream, extra_files={METADATA_FILE: json.dumps(metadata)})
    return stream.getvalue()


def _run_torch(content: bytes) -> Callable[[Tensor], Tensor]:
    return torch.export.load(io.BytesIO(content)).module()


def _to_onnx(model: PointNetModel, metadata: Mapping[str, str]) -> bytes:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError("exporting to ONNX", package, "export")
    points, sizes = _example(model)
    program = torch.onnx.export(
        model.fold(), points, dynamic_shapes=sizes, input_names=[INPUT], output_names=[OUTPUT], verbose=False
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


def _run_onnx(content: bytes) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run([OUTPUT], {INPUT: x.numpy()})[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides warnings of the exporters about themselves."""
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")
        for log in map(logging.getLogger, ("torch.onnx", "onnxscript")):
            stack.callback(log.setLevel, log.level)
            log.setLevel(logging.ERROR)
        yield
