"""The machine a notebook runs on: seed, device, profile, measured peak."""

import ctypes
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from helpers.foundations import rules
from helpers.foundations.accepts import accepts

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ("quick", "full")


def _device(value) -> torch.device:
    """Rule: a torch device, or its name."""
    try:
        return torch.device(rules.a(torch.device, str)(value))
    except RuntimeError as error:
        raise ValueError(f"expected a device: {_first_line(error)}") from None


def _floating(value) -> torch.dtype:
    if not rules.a(torch.dtype)(value).is_floating_point:
        raise ValueError("expected a floating-point dtype")
    return value


def _jobs(value) -> dict[str, Callable]:
    """Rule: at least one function, each by its name."""
    if not isinstance(value, Mapping) or not value or not all(map(callable, value.values())):
        raise TypeError("expected functions by their names, at least one")
    return dict(value)


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0]


@accepts(seed=rules.integer(0, 2**64 - 1), n_threads=rules.integer(1, 1024))
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
    """The fastest device present: CUDA, else Apple's MPS, else CPU; `DEVICE=cpu` overrides.

    Raises ValueError if the device that `DEVICE` names is unknown or not present.
    """
    if name := os.environ.get("DEVICE"):
        try:
            return torch.empty(0, device=name).device
        except Exception as error:
            raise ValueError(f"DEVICE={name!r}: expected a device that is present here, such as "
                             f"cpu: {_first_line(error)}") from None
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@accepts(dev=_device)
def synchronize(dev: torch.device) -> None:
    """Wait until `dev` has finished its queued work; needed before reading a clock."""
    _wait(dev)


def _wait(dev: torch.device) -> None:
    if dev.type == "cuda":
        torch.cuda.synchronize(dev)
    elif dev.type == "mps":
        torch.mps.synchronize()


@accepts(dev=_device)
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


@accepts(dev=_device)
def memory_bytes(dev: torch.device) -> int:
    """Memory of the device in bytes: of the accelerator if there is one, else of the machine."""
    if dev.type == "cuda":
        return torch.cuda.get_device_properties(dev).total_memory
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # Windows has no sysconf; this is MEMORYSTATUSEX, whose first dword is its own length
    status = (ctypes.c_ulonglong * 8)(64)
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return status[1]


@accepts(dev=_device, n=rules.integer(1), repeats=rules.integer(1), dtype=_floating)
def peak_flops(dev: torch.device, n: int = 1024, repeats: int = 7,
               dtype: torch.dtype = torch.float32) -> float:
    """Measured matmul rate in FLOP/s: the best of `repeats` products of two n×n matrices.

    One n×n product costs 2n³ FLOPs (a multiplication and an addition per term). The best run is
    taken because a peak is what the hardware can do when nothing else disturbs it.
    """
    a, b = (torch.ones(n, n, device=dev, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(repeats + 1):  # the first run also pays for start-up; min() drops it
        _wait(dev)
        start = time.perf_counter()
        a @ b
        _wait(dev)
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / max(best, 1e-9)  # a tiny product may take less than a tick of the clock


@accepts(dev=_device)
def fast_dtype(dev: torch.device) -> str:
    """`"bfloat16"` where the device multiplies it at least 1.5 times as fast as float32, measured;
    else `"float32"`. For `TrainConfig.dtype`."""
    low, full = (peak_flops(dev, 512, 15, dtype) for dtype in (torch.bfloat16, torch.float32))
    return "bfloat16" if low > 1.5 * full else "float32"


@accepts(dev=_device, megabytes=rules.integer(1), repeats=rules.integer(1))
def bandwidth(dev: torch.device, megabytes: int = 256, repeats: int = 7) -> float:
    """Measured memory rate in bytes/s: the best of `repeats` sums of two long vectors.

    Three streams count, two read and one written; they are too long for any cache.
    """
    a, b = (torch.ones(megabytes * 2**18, device=dev) for _ in range(2))
    out, best = torch.empty_like(a), float("inf")
    for _ in range(repeats):
        _wait(dev)
        start = time.perf_counter()
        torch.add(a, b, out=out)
        _wait(dev)
        best = min(best, time.perf_counter() - start)
    return 3 * a.numel() * a.element_size() / max(best, 1e-9)


@accepts(jobs=_jobs, n_rounds=rules.integer(1), least=rules.number(0))
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


class _TimeUp(BaseException):
    """Raised inside a job that runs too long."""


@accepts(job=rules.function, seconds=rules.number(above=0))
def limited(job: Callable[[], object], seconds: float) -> object:
    """What `job()` returns, or None if it has not returned after `seconds`.

    What it raises is raised here. An endless loop is ended by an exception inside it. One call
    inside C (`sum` over an endless iterator) cannot be ended so: it goes on until its process does,
    and holds up this one if it keeps the interpreter's lock.
    """
    def run():
        try:
            box["value"] = job()
        except BaseException as error:
            box["error"] = error

    box, thread = {}, threading.Thread(target=run, daemon=True)
    try:
        thread.start()
        thread.join(seconds)
        in_time = not thread.is_alive()
    finally:
        for _ in range(10):  # again if the job catches everything
            if not thread.is_alive():
                break
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(_TimeUp))
            thread.join(0.2)
    if in_time and "error" in box:
        raise box["error"]
    return box.get("value") if in_time else None
