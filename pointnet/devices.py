"""Devices, memory and threads, and what a run's figures depend on beside its settings."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

CGROUP = Path("/sys/fs/cgroup")


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, system, processor and threads, and the device."""
    import pointnet  # when all of it is loaded

    return {
        "pointnet": pointnet.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def processor() -> str:
    """What the CPU calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def find_device(name: str) -> torch.device:
    """The device of this name, "auto" being CUDA where there is one. ValueError if it is unknown or not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got '{name}'") from error
    if device.type != "cuda" and str(device) != "cpu":
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got '{name}'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device '{name}' is not there: {torch.cuda.device_count()} CUDA devices found")
    return device


@contextmanager
def deterministic_algorithms(wanted: bool = True) -> Iterator[None]:
    """Within it, where wanted, what a GPU computes is the same bits each time; PyTorch is as it was afterwards.

    An operator that cannot do so raises RuntimeError. cuBLAS reads CUBLAS_WORKSPACE_CONFIG, which is set here unless it
    was, at the first product of the process on a GPU: a program that has made one before sets it itself.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    torch.set_deterministic_debug_mode("error")
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        torch.backends.cudnn.benchmark = benchmark


def keep_freed_memory() -> None:
    """Makes glibc keep the large blocks it is given back, instead of returning each to the kernel.

    On a CPU every activation is such a block, and faulting its pages in again costs more than the arithmetic: the
    training step is some times faster with this. It changes no result, but the whole process, so programs call it and
    the library does not. Elsewhere than on glibc it does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        m_trim_threshold, m_mmap_max = -1, -4
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, -1)


def free_memory(device: torch.device) -> float:
    """Bytes that this process may take on the device, of a machine's memory its share; infinite where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = math.inf
    with contextlib.suppress(OSError, ValueError):  # a container's own limit, "max" where it has none
        limit, used = (int((CGROUP / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        free = limit - used
    with contextlib.suppress(OSError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = min(free, *(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")))
    return free / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # as torchrun says, all of which look at once
