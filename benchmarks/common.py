"""Shared by the benchmarks: the machine's line, timing in turn, peak memory, and the two networks to compare."""

import argparse
import copy
import math
import multiprocessing
import platform
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pointnet import PointNetClassifier, TNet
from pointnet.devices import precision_on, processor
from pointnet.ops.products import products_kept
from tests.textbook import TextbookPointNet, share_weights

Ours = TypeVar("Ours", bound=nn.Module)
Textbook = TypeVar("Textbook", bound=nn.Module)

# Multiply-adds of the classifier's forward pass per point and per cloud, with transforms folded (docs/identities.md,
# section 4; tests/test_pointnet.py counts them), and the ratio of an exact training step to a forward pass.
POINT_ADDS = 430_464
CLOUD_ADDS = 3_289_920
EXACT_STEP = 1.42
WIDEST = (32, 128, 1024, 1024)  # clouds, channels in, channels out and points of the widest layer's product


def parser(description: str) -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(description=description)
    flags.add_argument("--device", default="cpu")
    flags.add_argument("--threads", type=int, default=2)
    flags.add_argument("--rounds", type=int, default=9)
    return flags


def machine(device: str) -> str:
    if device != "cpu":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {platform.python_version()}"


def precisions(device: str) -> dict[str, torch.dtype]:
    """The precisions that the device has instructions for, and their dtypes."""
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return {name: dtype for name, dtype in dtypes.items() if precision_on(torch.device(device), name) == name}


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


@contextmanager
def full_precision() -> Iterator[None]:
    """A context in which a GPU's float32 convolutions are of float32; PyTorch's default is TF32, of 10 bits."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def side_by_side(functions: dict[str, Callable[[], object]], rounds: int, device: str = "cpu") -> dict[str, float]:
    """Median seconds of each function. They run in turn, so that a busy moment affects all of them.

    Each round has its own random order, because the function that ran before leaves its data in the caches. Where
    there are several rounds, up to two more warm up.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    order, shuffler = list(functions.items()), random.Random(0)
    warmups = min(2, rounds - 1)
    for _ in range(rounds + warmups):
        shuffler.shuffle(order)
        for name, function in order:
            synchronize(device)
            start = time.perf_counter()
            function()
            synchronize(device)
            times[name].append(time.perf_counter() - start)
    return {name: sorted(taken[warmups:])[rounds // 2] for name, taken in times.items()}


def widest_product(device: str, dtype: torch.dtype = torch.float32) -> Callable[[], None]:
    """A function that computes the product of the widest layer alone, one cloud at a time, as fast as we know, for
    `floor`.

    It is timed in the same rounds as what it is compared with: a machine's rate changes within minutes.
    """
    clouds, channels, widest, points = WIDEST
    x = torch.randn(clouds, channels, points, device=device, dtype=dtype)
    weight, product = torch.randn(widest, channels, device=device, dtype=dtype), products_kept()

    def multiply() -> None:
        with torch.no_grad():
            for cloud in x.split(1):
                product(cloud, weight)

    return multiply


def floor(adds: float, product_seconds: float) -> float:
    """Seconds that this many multiply-adds take at the rate of `widest_product`."""
    return adds / math.prod(WIDEST) * product_seconds


def pair(device: str = "cpu") -> tuple[PointNetClassifier, TextbookPointNet]:
    """Our classifier and the textbook's, with the same weights."""
    torch.manual_seed(0)
    return make_alike(PointNetClassifier(40), TextbookPointNet(40), device)


def make_alike(ours: Ours, textbook: Textbook, device: str = "cpu") -> tuple[Ours, Textbook]:
    """The two with the same weights: T-Nets far from the identity, norms of both signs, no dropout."""
    for module in ours.modules():
        if isinstance(module, TNet):
            nn.init.normal_(module.matrix.weight, std=0.01)
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight, 1.0, 0.3)
            module.weight.data[::7] *= -1
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.2, 1.0)
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for module in textbook.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    share_weights(ours, textbook)
    return ours.to(device), textbook.to(device)


def loss_of(model: nn.Module, x: Tensor, labels: Tensor, *more: Tensor) -> Tensor:
    """Cross-entropy of either network's logits; `more` is what the network takes besides x."""
    output = model(x, *more)
    logits = output if isinstance(output, Tensor) else output[0]
    return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels)


def check_equal(ours: nn.Module, textbook: nn.Module, *inputs: Tensor) -> None:
    """Raises AssertionError unless loss, gradients and running statistics agree; `inputs` are those of `loss_of`.

    It compares in float64. In float32 a near-tie of two points may have another winner, which then gets the gradient.
    The textbook first gets our weights again: steps that were measured on a GPU have changed both.
    """
    share_weights(ours, textbook)
    twins = [copy.deepcopy(model).double() for model in (ours, textbook)]
    x, labels, *more = inputs or (torch.randn(4, 3, 257), torch.arange(4))
    device = next(ours.parameters()).device
    losses = [loss_of(twin, *(part.to(device) for part in (x.double(), labels, *more))) for twin in twins]
    torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-6)
    mine, theirs = (
        [grad.flatten() for grad in torch.autograd.grad(loss, list(twin.parameters()))]
        for loss, twin in zip(losses, twins, strict=True)
    )
    for got, wanted in zip(mine, theirs, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-8)
    for mine_state, their_state in zip(*(twin.state_dict().values() for twin in twins), strict=True):
        torch.testing.assert_close(mine_state.view_as(their_state), their_state, rtol=1e-9, atol=1e-9)


def peak_memory(
    function: Callable[[], object], device: str = "cpu", first: Callable[[], object] = lambda: None
) -> float:
    """Peak MiB that the function adds to those in use before; on a CPU in a process of its own.

    Libraries that load on first use count too, unless `first` has used them.
    """
    if device != "cpu":
        first()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
        torch.set_num_threads(1)  # a forked OpenMP pool cannot be used
        first()
        forget_peak()
        before = resident()
        function()
        sender.send(peak() - before)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    sender.close()  # so that `recv` fails if the child dies
    result = float(receiver.recv())
    process.join()
    return result


def resident() -> float:
    """MiB of memory that this process uses now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def forget_peak() -> None:
    """Makes `peak` count from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """Peak MiB of this process, since it began or since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
