"""Time of an epoch of `fit` and of a loop written the usual way: same network, weights, batches and augmentation.

    python -m benchmarks.epoch [--root ../shared/data/modelnet40_dev] [--clouds 0] [--device cuda]

The usual way is a `DataLoader` with two workers, numpy augmentation per sample, `.item()` at every step, and the
network of `tests/textbook.py`. Each row runs in its own process, because keeping freed memory cannot be undone. The
rows take turns; a turn is an epoch of `--clouds` clouds, and the first one warms up. On a busy machine the figures
mean little, because the loops need different numbers of cores.
"""

import argparse
import multiprocessing
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, get_worker_info

from benchmarks.common import check_equal, machine, pair, parser, synchronize
from pointnet import PointNetClassifier
from pointnet.datasets import LabelledClouds, ModelNet
from pointnet.datasets.transforms import random_jitter, random_scale, random_shift, random_subset
from pointnet.devices import keep_freed_memory
from pointnet.training import TrainConfig, fit
from pointnet.training.loader import ResidentLoader, cut_batches
from tests.textbook import TextbookPointNet


@dataclass(frozen=True)
class Row:
    """One loop.

    Args:
        name: its name in the table.
        resident: whether clouds are on the device and augmented per batch; else `DataLoader` and numpy.
        item: whether each step waits for its own loss.
        ours: whether it is `fit` with our network; else the usual loop with the textbook's.
        kept: whether freed memory is kept.
    """

    name: str
    resident: bool = True
    item: bool = False
    ours: bool = False
    kept: bool = False


USUAL = Row("the usual loop", resident=False, item=True)
TRAIN_PY = Row("+ freed memory kept, as in `train.py`", ours=True, kept=True)
ROWS = (
    USUAL,
    Row("+ clouds resident, augmented by the batch", item=True),
    Row("+ no `.item()`"),
    Row("+ our network and step: `fit`", ours=True),
    TRAIN_PY,
    Row("the usual loop, freed memory kept", resident=False, item=True, kept=True),
)


class Turn(NamedTuple):
    """Seconds of an epoch's batches, of the steps among them (reported by `fit`), and of writing after them."""

    batches: float
    steps: float
    written: float


def main(arguments: Sequence[str] | None = None) -> None:
    flags = parser(__doc__ or "")
    flags.set_defaults(rounds=3)
    flags.add_argument("--root", type=Path, default=Path("data/samples"), help="a folder with ModelNet40 as HDF5")
    flags.add_argument("--clouds", type=int, default=256, help="clouds in the epoch of one turn; 0 for all")
    flags.add_argument("--batch_size", type=int, default=32)
    args = flags.parse_args(arguments)
    torch.set_num_threads(args.threads)
    check_equal(*pair(args.device))
    whole = len(ModelNet(args.root))
    args.clouds = min(args.clouds or whole, whole)
    print(
        f"{machine(args.device)}; {args.clouds:,} clouds x 1,024 points per turn, batch "
        f"{args.batch_size}, median of {args.rounds}; gradients equal",
        flush=True,
    )
    report(take_turns(args), args.clouds, whole)


def report(taken: dict[Row, list[Turn]], clouds: int, whole: int) -> None:
    """Prints the table, with each row also compared to the one before it, and the step's share of our epoch."""
    seconds = {row: median(turn.batches for turn in turns) * whole / clouds for row, turns in taken.items()}
    print(f"| loop | s per epoch of {whole:,} | clouds/s | times the usual speed | times the row before |")
    print("|-|-|-|-|-|")
    before = seconds[USUAL]
    for row in ROWS:
        step_up = f"{before / seconds[row]:.2f}" if row in ROWS[1:5] else "-"
        print(
            f"| {row.name} | {seconds[row]:.1f} | {whole / seconds[row]:,.0f} | {seconds[USUAL] / seconds[row]:.2f} | "
            f"{step_up} |"
        )
        before = seconds[row]
    batches, steps, written = (median(part) for part in zip(*taken[TRAIN_PY], strict=True))
    batches, steps = batches * whole / clouds, steps * whole / clouds
    whole_epoch = batches + written
    print(
        f"The step (forward, loss, backward, AdamW, sums) is {steps / whole_epoch:.1%} of our epoch: {steps:.1f} of "
        f"{whole_epoch:.1f} s; batches and augmentation {batches - steps:.2f} s, checkpoint {written:.2f} s"
    )


def take_turns(args: argparse.Namespace) -> dict[Row, list[Turn]]:
    """The times of each row, turn by turn without the first; every round has its own random order."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.common", "pointnet.training", "torch._dynamo"])  # slow: once for all
    pipes: dict[Row, Connection] = {}
    for row in ROWS:
        pipes[row], theirs = context.Pipe()
        context.Process(target=serve, args=(row, args, theirs)).start()
        theirs.close()  # so that `recv` fails if the child dies
    taken: dict[Row, list[Turn]] = {row: [] for row in ROWS}
    order, shuffler = list(ROWS), random.Random(0)
    try:
        for row in ROWS:
            pipes[row].recv()  # its data are loaded
        for turn in range(args.rounds + 1):
            shuffler.shuffle(order)
            for row in order:
                pipes[row].send("go")
                taken[row].append(pipes[row].recv())
            print(f"turn {turn}:", *(f"{turns[-1].batches:.1f}" for turns in taken.values()), "s", file=sys.stderr)
    finally:
        for pipe in pipes.values():
            pipe.close()  # so that no child waits for another turn
    return {row: turns[1:] for row, turns in taken.items()}


def serve(row: Row, args: argparse.Namespace, pipe: Connection) -> None:
    """The process of a row: trains an epoch whenever a message comes."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    torch.set_num_threads(args.threads)
    if row.kept:
        keep_freed_memory()
    data = ModelNet(args.root)
    data = data.subset(torch.randperm(len(data), generator=Generator().manual_seed(0))[: args.clouds])
    began = 0.0

    def wait_for_turn(answer: Any = "ready") -> None:
        nonlocal began
        pipe.send(answer)
        pipe.recv()
        began = time.perf_counter()

    def after_epoch(metrics: dict[str, Any]) -> None:
        written = time.perf_counter() - began - metrics["seconds"]
        steps = sum(
            metrics.get(f"{part}_seconds", 0.0) for part in ("forward", "backward", "forward_backward", "optimizer")
        )
        turn = Turn(metrics["seconds"], steps, written)
        if metrics["epoch"] <= args.rounds:
            wait_for_turn(turn)
        else:
            pipe.send(turn)

    with tempfile.TemporaryDirectory() as out:
        config = TrainConfig(
            dataset="modelnet40",
            epochs=args.rounds + 1,
            early_points=0,
            batch_size=args.batch_size,
            jitter=0.01,
            val_fraction=0,
            feed="resident",
            device=args.device,
            out=out,
        )
        wait_for_turn()
        if row.ours:
            fit(config, data, log=lambda line: None, after_epoch=after_epoch)
        else:
            train_usual(row, config, data, after_epoch)


def train_usual(
    row: Row, config: TrainConfig, data: LabelledClouds, after_epoch: Callable[[dict[str, Any]], None]
) -> None:
    """Trains the textbook's network, starting from the weights that `fit` starts with."""
    torch.manual_seed(config.seed)
    begun = PointNetClassifier(len(data.classes)).state_dict()
    model = TextbookPointNet(len(data.classes))
    model.load_state_dict(dict(zip(model.state_dict(), begun.values(), strict=True)))
    model.to(config.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=config.weight_decay)
    batches = resident_batches(data, config) if row.resident else loaded_batches(data, config)
    for epoch in range(1, config.epochs + 1):
        synchronize(config.device)
        start = time.perf_counter()
        loss_sum: float | Tensor = 0.0
        right: float | Tensor = 0
        for points, labels in batches():
            x, labels = points.to(config.device), labels.to(config.device)
            logits, _, align = model(x)
            loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
            loss = loss + config.regularization_weight * how_far_from_orthogonal(align)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            correct = (logits.argmax(1) == labels).sum()
            loss_sum += loss.item() * len(labels) if row.item else loss.detach() * len(labels)
            right += correct.item() if row.item else correct
        train_loss, train_accuracy = float(loss_sum) / len(data), float(right) / len(data)
        seconds = time.perf_counter() - start
        after_epoch({"epoch": epoch, "seconds": seconds, "train_loss": train_loss, "train_accuracy": train_accuracy})


def how_far_from_orthogonal(align: Tensor) -> Tensor:
    product = torch.bmm(align, align.transpose(2, 1))
    return (torch.eye(align.shape[1], device=align.device) - product).square().sum((1, 2)).mean()


class UsualDataset(Dataset[tuple[Tensor, int]]):
    """Clouds (3, N) and labels, augmented in numpy: scaled, shifted, jittered, points shuffled."""

    def __init__(self, data: LabelledClouds, config: TrainConfig):
        self.points = data.points.transpose(1, 2).contiguous().numpy()
        self.labels = data.labels.numpy()
        self.config = config
        self.generator = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        cloud, config, draw = self.points[index], self.config, self.generator
        cloud = cloud * draw.uniform(1 / config.scale, config.scale, 3)
        cloud = cloud + draw.uniform(-config.shift, config.shift, 3)
        cloud = cloud + np.clip(config.jitter * draw.standard_normal(cloud.shape), -0.05, 0.05)
        draw.shuffle(cloud)
        return torch.from_numpy(cloud.astype(np.float32).T), int(self.labels[index])


def draw_apart(worker: int) -> None:
    """Gives a loader's worker its own random numbers."""
    info = get_worker_info()
    info.dataset.generator = np.random.default_rng(info.seed)


def loaded_batches(data: LabelledClouds, config: TrainConfig) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
    loader = DataLoader(
        UsualDataset(data, config),
        batch_size=config.batch_size,
        shuffle=True,
        num_workers=2,
        drop_last=False,
        worker_init_fn=draw_apart,
        multiprocessing_context="fork",  # Linux's default; a child of forkserver would inherit it, which is slower
    )
    return lambda: iter(loader)


def resident_batches(data: LabelledClouds, config: TrainConfig) -> Callable[[], Iterator[tuple[Tensor, Tensor]]]:
    device = torch.device(config.device)
    source, generator = ResidentLoader(data, device), Generator(device).manual_seed(config.seed)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(data), device=device, generator=generator)
        for points, labels in source.batches(cut_batches(order, config.batch_size)):
            x = random_subset(points, config.num_points, generator)
            x = random_shift(random_scale(x, config.scale, generator), config.shift, generator)
            yield random_jitter(x, config.jitter, generator), labels

    return batches


if __name__ == "__main__":
    main()
