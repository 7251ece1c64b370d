"""The machine a notebook runs on: seed, device, profile, measured peak."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ("quick", "full")


def setup(seed: int = 0, n_threads: int = 1) -> np.random.Generator:
    """Seed torch, fix its and numpy's thread count, and return a seeded numpy generator.

    One thread is the default because sums over several threads round differently: with it, the
    same notebook prints the same digits on machines with different numbers of cores.
    """
    keep_freed_memory()
    torch.manual_seed(seed)
    threadpool_limits(n_threads)  # numpy's matrix products
    torch.set_num_threads(n_threads)
    return np.random.default_rng(seed)


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next step instead of giving it back to the system.

    A training step frees and asks for the same megabytes again and again; each time the system
    would clear them first. Elsewhere than on Linux with glibc nothing happens.
    """
    import ctypes  # only here

    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None:
        for option, value in ((-3, 2**25), (-1, 2**31 - 1), (-2, 2**28)):
            mallopt(option, value)  # largest block from the heap; when to trim; room on top


def profile() -> str:
    """`"quick"` (default: what continuous integration runs) or `"full"`, from `PROFILE`.

    Raises ValueError for any other value.
    """
    name = os.environ.get("PROFILE", "quick")
    if name not in PROFILES:
        raise ValueError(f"PROFILE={name!r}: expected one of {PROFILES}")
    return name


def device() -> torch.device:
    """The fastest device present: CUDA, else Apple's MPS, else CPU; `DEVICE=cpu` overrides."""
    if name := os.environ.get("DEVICE"):
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def synchronize(dev: torch.device) -> None:
    """Wait until `dev` has finished its queued work; needed before reading a clock."""
    if dev.type == "cuda":
        torch.cuda.synchronize(dev)
    elif dev.type == "mps":
        torch.mps.synchronize()


def device_name(dev: torch.device) -> str:
    """What the device calls itself, for the `device` column of a recorded run."""
    if dev.type == "cuda":
        return torch.cuda.get_device_name(dev)
    return f"{platform.machine()} {dev.type}"


def describe() -> dict[str, str]:
    """Facts about this machine, as text: system, device, cores, memory, versions."""
    dev = device()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device_name(dev),
        "cores": str(os.cpu_count()),
        "memory": f"{memory_bytes(dev) / 2**30:.0f} GiB",
    }


def memory_bytes(dev: torch.device) -> int:
    """Memory of the device in bytes: of the accelerator if there is one, else of the machine."""
    if dev.type == "cuda":
        return torch.cuda.get_device_properties(dev).total_memory
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    import ctypes  # Windows has no sysconf

    status = (ctypes.c_ulonglong * 8)(64)  # MEMORYSTATUSEX; its first dword is its own length
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return status[1]


def peak_flops(dev: torch.device, n: int = 1024, repeats: int = 7,
               dtype: torch.dtype = torch.float32) -> float:
    """Measured matmul rate in FLOP/s: the best of `repeats` products of two n×n matrices.

    One n×n product costs 2n³ FLOPs (a multiplication and an addition per term). The best run is
    taken because a peak is what the hardware can do when nothing else disturbs it.
    """
    a, b = (torch.ones(n, n, device=dev, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(repeats + 1):  # the first run also pays for start-up; min() drops it
        synchronize(dev)
        start = time.perf_counter()
        a @ b
        synchronize(dev)
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def fast_dtype(dev: torch.device) -> str:
    """`"bfloat16"` where the device multiplies it at least 1.5 times as fast as float32, measured;
    else `"float32"`. For `TrainConfig.dtype`."""
    low, full = (peak_flops(dev, 512, 15, dtype) for dtype in (torch.bfloat16, torch.float32))
    return "bfloat16" if low > 1.5 * full else "float32"


def bandwidth(dev: torch.device, megabytes: int = 256, repeats: int = 7) -> float:
    """Measured memory rate in bytes/s: the best of `repeats` sums of two long vectors.

    Three streams count, two read and one written; they are too long for any cache.
    """
    a, b = (torch.ones(megabytes * 2**18, device=dev) for _ in range(2))
    out, best = torch.empty_like(a), float("inf")
    for _ in range(repeats):
        synchronize(dev)
        start = time.perf_counter()
        torch.add(a, b, out=out)
        synchronize(dev)
        best = min(best, time.perf_counter() - start)
    return 3 * a.numel() * a.element_size() / best


def take_turns(jobs: dict[str, Callable[[], object]], n_rounds: int = 7,
               least: float = 0.0) -> dict[str, np.ndarray]:
    """Seconds per call of each job, (n_rounds,), the jobs taking turns: A B C A B C …

    Whatever else slows the machine then slows all of them alike, so ratios of medians hold where
    times do not. A turn repeats its job for about `least` seconds. One untimed call comes first.
    """
    repeats, seconds = {}, {name: np.empty(n_rounds) for name in jobs}
    for name, job in jobs.items():
        job()  # what only the first call pays for
        start = time.perf_counter()
        if least:
            job()
        once = max(time.perf_counter() - start, 1e-9)
        repeats[name] = max(1, round(least / once))
    for i in range(n_rounds):
        for name, job in jobs.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                job()
            seconds[name][i] = (time.perf_counter() - start) / repeats[name]
    return seconds
