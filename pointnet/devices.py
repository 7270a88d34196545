"""Devices, threads and memory, and the environment that a run's figures depend on."""

import contextlib
import ctypes
import functools
import math
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import pointnet

from .world import place_on_machine

CGROUP = Path("/sys/fs/cgroup")
BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")  # what a processor that multiplies it has one of, x86 or ARM


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, system, processor and threads, and the device."""
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


def use_threads(count: int = 0) -> str:
    """Sets how many threads PyTorch computes with on the CPU: -> the choice in words, for a log.

    Args:
        count: that many; 0 for OMP_NUM_THREADS where it is set, else for as many as there are free cores: those that
            this process may run on, within the CPU quota of its container. ValueError if negative.
    """
    if count < 0:
        raise ValueError(f"threads must be at least 0, got {count}")
    cores = free_cores()
    if count or not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(count or cores)
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' * (threads != 1)} on {cores} free core{'s' * (cores != 1)}"


def free_cores() -> int:
    """How many cores this process may keep busy: its CPU affinity, cut to the CPU quota of its cgroup; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # cgroup v2; "max" where there is no quota
        quota, period = map(int, (CGROUP / "cpu.max").read_text(encoding="ascii").split())
        cores = min(cores, quota // period)
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # cgroup v1; -1 where there is no quota
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        quota, period = (int((CGROUP / "cpu" / name).read_text(encoding="ascii")) for name in names)
        cores = min(cores, quota // period if quota > 0 else cores)
    return max(cores, 1)


def find_device(name: str) -> torch.device:
    """The device of this name; "auto" is CUDA if there is one, else the CPU. ValueError if there is no such device."""
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
    """A context in which a GPU gives the same bits every time, if `wanted`; PyTorch's settings are put back after it.

    An operator that has no deterministic form raises RuntimeError. cuBLAS reads CUBLAS_WORKSPACE_CONFIG once, at the
    first product of the process on a GPU. It is set here unless it was set before, so a program that has already
    computed on the GPU must set it itself.
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


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context in which products are computed in `precision_on` this device of "fp32" or "bf16". Where that is
    "fp32", no autocast around it counts."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision_on(device, precision) == "bf16")


def precision_on(device: torch.device, asked: str) -> str:
    """What `autocast` computes products in, where "fp32" or "bf16" is asked: "fp32" on a processor that has no
    instructions for bfloat16, where products of it take five times as long."""
    known = device.type == "cpu" and capabilities()
    return "fp32" if known and not any(known.get(name) for name in BFLOAT16) else asked


def precision_in_words(device: torch.device, asked: str) -> str:
    """`precision_on` this device, for a log, with the reason where it is not what was asked."""
    taken = precision_on(device, asked)
    return taken if taken == asked else f"{taken}, as this processor has no instructions for {asked}"


def lines_on_precision(device: torch.device, asked: str) -> list[str]:
    """A line if `precision_on` this device is not what was asked."""
    words = precision_in_words(device, asked)
    return [] if words == asked else [f"precision: {words}"]


@functools.cache
def capabilities() -> Mapping[str, Any]:
    """What this processor has, and its name; nothing before torch 2.12."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def keep_freed_memory() -> None:
    """Makes glibc keep large freed blocks instead of returning each of them to the kernel.

    On a CPU every activation is such a block, and faulting its pages in again costs more than the arithmetic: a
    training step is several times faster with this. It changes no result, but it changes the whole process, so programs
    call it and the library does not. Without glibc it does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        m_trim_threshold, m_mmap_max = -1, -4
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, -1)


def free_memory(device: torch.device) -> float:
    """Bytes that this process may still take on the device; infinite where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = math.inf
    with contextlib.suppress(OSError, ValueError):  # the container's limit; "max" where there is none
        limit, used = (int((CGROUP / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        free = limit - used
    with contextlib.suppress(OSError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = min(free, *(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")))
    return free / place_on_machine()[1]  # all of them ask at once
