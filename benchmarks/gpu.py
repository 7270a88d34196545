"""All that is to be known of a GPU, in one command: its tests, and time and memory of each network.

python -m benchmarks.gpu --out DIR [--minutes 9] [--networks pointnet dgcnn ...] [--root data]

It stops after `--minutes`; the same command continues where it stopped, on the same GPU. DIR/gpu.json holds what was
found, DIR/gpu.md the table. A step is forward and backward; inference is of our folded network and of the textbook's in
eval mode, all with the same weights. *Recorded* is as a CUDA graph that is replayed, as training runs its steps;
*compiled* is by `torch.compile`, only for networks that do not sample: it unrolls sampling for minutes. Without a CUDA
device it says so and ends. With `--root` an epoch of ModelNet40 too, as `benchmarks.epoch` measures it.
"""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.common import machine, parser, side_by_side
from benchmarks.family import FAMILY, Entry, Job
from pointnet import PointNetClassifier
from pointnet.ops import kernels
from pointnet.training.cuda_graph import WARM_UP
from tests.textbook import TextbookPointNet

NETWORKS = {"pointnet": Entry(PointNetClassifier, lambda: TextbookPointNet(40), 32, lambda model, x: None), **FAMILY}
PRECISIONS = ("fp32", "tf32", "bf16")
COMPILED = ("pointnet", "dgcnn")
TESTS = ("tests/test_gpu.py", "tests/test_kernels.py")
ROOT = Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None) -> None:
    flags = parser(__doc__ or "")
    flags.set_defaults(device="cuda")
    flags.add_argument("--out", type=Path, required=True)
    flags.add_argument("--minutes", type=float, default=9.0)
    flags.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    flags.add_argument("--clouds", type=int, help="in a batch; as in benchmarks.family, 32 for pointnet")
    flags.add_argument("--num_points", type=int, default=1024)
    flags.add_argument("--root", help="of ModelNet40")
    args = flags.parse_args(arguments)
    if args.device != "cpu" and not torch.cuda.is_available():
        print("no CUDA device: nothing was measured")
        return
    end = time.monotonic() + 60 * args.minutes
    found = Found(args.out, machine(args.device))
    for name, measure in jobs(args.device, args.networks, args.clouds, args.num_points, args.rounds, args.root):
        if name in found.rows:
            continue
        if time.monotonic() > end:
            print(f"stopped before {name}; the same command continues there")
            return
        found.add(name, measure())
    print(found.table())


class Found:
    """Results by job, in a folder, kept after each.

    Raises:
        ValueError: the folder holds those of another machine.
    """

    def __init__(self, folder: Path, machine: str):
        self.folder, self.machine = folder, machine
        self.rows: dict[str, list[dict[str, Any]]] = {}
        if self._file.exists():
            held = json.loads(self._file.read_text(encoding="utf-8"))
            if held["machine"] != machine:
                raise ValueError(f"{self._file} is of {held['machine']}, this is {machine}; take another --out")
            self.rows = held["rows"]

    @property
    def _file(self) -> Path:
        return self.folder / "gpu.json"

    def add(self, name: str, rows: list[dict[str, Any]]) -> None:
        self.rows[name] = rows
        self.folder.mkdir(parents=True, exist_ok=True)
        held = {"machine": self.machine, "rows": self.rows}
        self._file.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
        (self.folder / "gpu.md").write_text(self.table(), encoding="utf-8")
        print(f"{name}: done", flush=True)

    def table(self) -> str:
        lines = [
            self.machine,
            "",
            "| network | precision | what | way | ms | clouds/s | times faster | MiB |",
            "|-" * 8 + "|",
        ]
        for name, rows in self.rows.items():
            for row in rows:
                if "text" in row:
                    lines.insert(1, f"\n{name}: {row['text']}")
                    continue
                memory = f"{row['mib']:,.0f}" if row["mib"] is not None else ""
                lines.append(
                    f"| {row['network']} | {row['precision']} | {row['what']} | {row['way']} | {row['ms']:.2f} | "
                    f"{row['clouds_per_second']:,.0f} | {row['times_faster']:.2f} | {memory} |"
                )
        return "\n".join(lines) + "\n"


def jobs(
    device: str, networks: Sequence[str], clouds: int | None, points: int, rounds: int, root: str | None = None
) -> Iterator[tuple[str, Callable[[], list[dict[str, Any]]]]]:
    """Names and functions, the tests first, then each network at each precision, then the epoch."""
    if device != "cpu":
        for file in TESTS:
            yield file, lambda file=file: [{"text": outcome(file)}]
    size = clouds, points, rounds, device
    for name, precision in itertools.product(networks, PRECISIONS):
        yield f"{name}, {precision}", lambda name=name, precision=precision: rows(name, precision, False, *size)
    if device != "cpu":
        for name, precision in itertools.product([name for name in networks if name in COMPILED], PRECISIONS):
            title = f"{name}, {precision}, compiled"
            yield title, lambda name=name, precision=precision: rows(name, precision, True, *size)
    if root is not None:
        words = "benchmarks.epoch", "--root", str(Path(root).absolute()), "--device", device
        yield "an epoch of ModelNet40", lambda: [{"text": printed(*words)}]


def printed(*words: str) -> str:
    """What a module prints."""
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip()[-200:]


def outcome(file: str) -> str:
    """The last line of the tests of a file."""
    # Kernels are compiled on all cores; pytest-benchmark, where it is installed, warns of that.
    return printed("pytest", "-q", "--slow", "-n", "8", "-p", "no:benchmark", file).splitlines()[-1]


def rows(
    name: str, precision: str, compiled: bool, clouds: int | None, points: int, rounds: int, device: str
) -> list[dict[str, Any]]:
    """A row for each way to run a step and inference; AssertionError if ours and the textbook's are not equal."""
    job = job_of(name, clouds, points, device)
    found = []
    for what, call, ours in (("step", job.step, job.ours), ("inference", job.infer, job.folded)):
        with at(precision, device):
            ways = ways_of(call, job.textbook, ours, compiled, device)
            for each in ways.values():  # compiles
                each()
            seconds = side_by_side(ways, rounds, device)
        memory = dict(zip(("ours", "textbook"), job.took[what], strict=True))
        for way, taken in seconds.items():
            found.append(
                {
                    "network": name, "precision": precision, "what": what, "way": way, "ms": 1e3 * taken,
                    "clouds_per_second": len(job.x) / taken, "times_faster": seconds["textbook"] / taken,
                    "mib": memory.get(way),
                }
            )  # fmt: skip
    return found


@lru_cache(maxsize=1)
def job_of(name: str, clouds: int | None, points: int, device: str) -> Job:
    """A network and the textbook's, found to be equal, with kernels too where there are some."""
    job = Job(NETWORKS[name], clouds or NETWORKS[name].clouds, points, device)
    if device != "cpu":
        check_kernels(job)
    return job


def ways_of(
    call: Callable[[nn.Module], Callable[[], None]], textbook: nn.Module, ours: nn.Module, compiled: bool, device: str
) -> dict[str, Callable[[], None]]:
    """By name, what a `call` of the networks runs: as it comes, and on a GPU recorded or, if so asked, compiled."""
    models = {"textbook": textbook, "ours": ours}
    plain = {name: call(model) for name, model in models.items()}
    if device == "cpu":
        return plain
    if compiled:
        return plain | {f"{name}, compiled": call(torch.compile(model)) for name, model in models.items()}
    recorded = {f"{name}, recorded": recording(each) for name, each in plain.items()}
    with without_kernels():
        return plain | recorded | {"ours, recorded, no kernels": recording(plain["ours"])}


def recording(call: Callable[[], None]) -> Callable[[], None]:
    """The call as one CUDA graph, as `training.cuda_graph` records a step."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


@contextmanager
def without_kernels() -> Iterator[None]:
    """A context in which no kernel runs, as with POINTNET_KERNELS=none."""
    before, kernels.CHOICE = kernels.CHOICE, "none"
    try:
        yield
    finally:
        kernels.CHOICE = before


@torch.no_grad()
def check_kernels(job: Job) -> None:
    """Raises AssertionError unless kernels give the folded network's logits, to TF32's rounding."""
    with at("tf32", str(job.x.device)):
        got = job.folded(job.x)
    with at("fp32", str(job.x.device)), without_kernels():
        wanted = job.folded(job.x)
    torch.testing.assert_close(got, wanted, rtol=1e-2, atol=1e-2 * wanted.abs().max().item())


@contextmanager
def at(precision: str, device: str) -> Iterator[None]:
    """A context with the products of one of `PRECISIONS`."""
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        with torch.autocast(
            torch.device(device).type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False
        ):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


if __name__ == "__main__":
    main()
