"""A training step on a busy machine: ours and the textbook, quiet and beside another process, by how threads wait.

python -m benchmarks.loaded [--batch_size 32]

PyTorch's threads wait for each other at the end of every operation. By default they spin, and where another process
has taken a core, they spin for as long as that process runs. `OMP_WAIT_POLICY=PASSIVE` lets them sleep instead, and
`GOMP_SPINCOUNT` spin for a while first. Both are read when PyTorch is loaded, so each row is measured in a process of
its own, which runs both networks in turn.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import torch

from benchmarks.common import loss_of, machine, pair, parser, side_by_side
from pointnet.devices import keep_freed_memory

POLICIES = {
    "spinning": {},
    "sleeping": {"OMP_WAIT_POLICY": "PASSIVE"},
    "as `train.py` sets": {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"},
}


def main() -> None:
    flags = parser(__doc__ or "")
    flags.add_argument("--batch_size", type=int, default=32)
    flags.add_argument("--num_points", type=int, default=1024)
    flags.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = flags.parse_args()
    torch.set_num_threads(args.threads)
    if args.measure:
        print(json.dumps(measure(args)))
        return
    print(f"{machine('cpu')}; batch {args.batch_size} x {args.num_points} points, freed memory kept")
    print("| beside | threads wait | ours, s per step | textbook, s per step | times faster |")
    print("|-|-|-|-|-|")
    for beside, others in (("nothing", 0), ("a busy process", 1)):
        for policy, settings in POLICIES.items():
            with busy_processes(others):
                seconds = measured_apart(settings)
            ratio = seconds["textbook"] / seconds["ours"]
            print(
                f"| {beside} | {policy} | {seconds['ours']:.2f} | {seconds['textbook']:.2f} | {ratio:.1f} |", flush=True
            )


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Median seconds per training step of both networks, in this process."""
    keep_freed_memory()
    ours, textbook = pair()
    models = {"ours": ours, "textbook": textbook}
    optimizers = {name: torch.optim.AdamW(model.parameters(), fused=True) for name, model in models.items()}
    x, labels = torch.randn(args.batch_size, 3, args.num_points), torch.randint(0, 40, (args.batch_size,))

    def step(name: str) -> None:
        loss = loss_of(models[name], x, labels)
        optimizers[name].zero_grad()
        loss.backward()
        optimizers[name].step()

    return side_by_side({name: (lambda name=name: step(name)) for name in models}, args.rounds)


def measured_apart(settings: dict[str, str]) -> dict[str, float]:
    """What `measure` gives in a new process with these variables, and without any that set how threads wait."""
    clean = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    command = [sys.executable, "-m", "benchmarks.loaded", *sys.argv[1:], "--measure"]
    done = subprocess.run(command, env=clean | settings, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many processes that keep a core busy each."""
    processes = [multiprocessing.Process(target=keep_busy, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def keep_busy() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    until = time.monotonic() + 3600
    while time.monotonic() < until:
        pass


if __name__ == "__main__":
    main()
