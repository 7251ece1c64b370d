"""Seeds, profile, device and measured peak: the machine behind the other tests."""

import re
import time

import numpy as np
import pytest
import torch

from helpers import runtime

CPU = torch.device("cpu")


def test_setup_repeats_both_generators_for_a_seed_and_not_for_another():
    draws = {}
    for run, seed in (("first", 3), ("again", 3), ("other", 4)):
        rng = runtime.setup(seed)
        draws[run] = np.concatenate([rng.normal(size=4), torch.rand(4).numpy()])
    assert np.array_equal(draws["first"], draws["again"])
    assert not np.isin(draws["other"], draws["first"]).any()


def test_setup_fixes_the_thread_count():
    runtime.setup(0, n_threads=2)
    assert torch.get_num_threads() == 2
    runtime.setup(0)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("name", runtime.PROFILES)
def test_profile_comes_from_the_environment(name, monkeypatch):
    monkeypatch.setenv("PROFILE", name)
    assert runtime.profile() == name


def test_profile_is_quick_unless_said_otherwise(monkeypatch):
    monkeypatch.delenv("PROFILE", raising=False)
    assert runtime.profile() == "quick"


def test_an_unknown_profile_is_refused_with_the_known_ones(monkeypatch):
    monkeypatch.setenv("PROFILE", "fast")
    with pytest.raises(ValueError, match=r"PROFILE='fast': expected one of \('quick', 'full'\)"):
        runtime.profile()


@pytest.mark.parametrize("name", ["cpu", "meta"])
def test_device_variable_overrides_what_is_present(name, monkeypatch):
    monkeypatch.setenv("DEVICE", name)
    assert runtime.device() == torch.device(name)


@pytest.mark.parametrize(("cuda", "mps", "expected"), [
    (True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_the_fastest_device_present_is_taken(cuda, mps, expected, monkeypatch):
    monkeypatch.delenv("DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert runtime.device().type == expected


def test_peak_flops_is_a_positive_rate_on_the_cpu():
    peak = runtime.peak_flops(CPU, n=64, repeats=2)
    assert 0 < peak < float("inf")


def test_peak_flops_counts_two_per_term_of_the_product(monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr(runtime.time, "perf_counter", lambda: next(ticks))  # each run: 1 second
    assert runtime.peak_flops(CPU, n=8, repeats=2) == 2 * 8**3


def test_describe_gives_text_facts_about_the_machine(monkeypatch):
    monkeypatch.setenv("DEVICE", "cpu")
    facts = runtime.describe()
    assert list(facts) == ["system", "python", "torch", "device", "cores", "memory"]
    assert all(isinstance(fact, str) and fact for fact in facts.values())
    assert facts["device"].endswith("cpu")
    assert facts["torch"] == torch.__version__


def test_memory_is_more_than_a_quarter_gibibyte():
    assert runtime.memory_bytes(CPU) > 2**28


def test_jobs_take_turns_and_a_slow_one_shows_its_time():
    called = []
    seconds = runtime.take_turns({"a": lambda: called.append("a"),
                                  "b": lambda: (called.append("b"), time.sleep(0.01))}, 3)
    assert called == ["a", "b"] + ["a", "b"] * 3
    assert seconds["a"].shape == (3,)
    assert np.median(seconds["b"]) >= 0.01 > np.median(seconds["a"]) > 0


def test_a_turn_repeats_a_quick_job_and_counts_one_call():
    called = []
    seconds = runtime.take_turns({"a": lambda: (called.append(1), time.sleep(0.001))}, 2, 0.02)
    assert len(called) > 8
    assert 0.001 <= np.median(seconds["a"]) < 0.02


def test_bandwidth_is_that_of_a_memory():
    assert 1e8 < runtime.bandwidth(torch.device("cpu"), megabytes=16) < 1e13


def test_the_fast_dtype_is_the_one_that_measures_faster(monkeypatch):
    for ratio, expected in ((1.2, "float32"), (2.0, "bfloat16")):
        rates = {torch.bfloat16: ratio, torch.float32: 1.0}
        monkeypatch.setattr(runtime, "peak_flops", lambda *args, rates=rates: rates[args[-1]])
        assert runtime.fast_dtype(torch.device("cpu")) == expected


def test_freed_memory_is_kept_or_nothing_happens():
    runtime.keep_freed_memory()  # also where there is no glibc


@pytest.mark.parametrize(("function", "args", "named"), [
    ("setup", (-1,), "seed=-1: expected a whole number ≥ 0"), ("setup", (0.0,), "seed=0.0"),
    ("setup", (None,), "seed=None"), ("setup", (True,), "seed=True"), ("setup", (2**64,), "seed="),
    ("setup", (0, 0), "n_threads=0: expected a whole number ≥ 1"), ("setup", (0, 1.5), "n_threads"),
    ("peak_flops", (CPU, 0), "n=0"), ("peak_flops", (CPU, 8, 0), "repeats=0"),
    ("peak_flops", (CPU, 8.0), "n=8.0"), ("peak_flops", ("abacus",), "dev='abacus': expected a"),
    ("peak_flops", (CPU, 8, 1, torch.int64), "dtype=torch.int64: expected a floating-point dtype"),
    ("peak_flops", (CPU, 8, 1, "float32"), "dtype='float32': expected dtype"),
    ("fast_dtype", (None,), "dev=None"), ("memory_bytes", (0,), "dev=0"),
    ("device_name", (None,), "dev=None"), ("synchronize", ("gpu",), "dev='gpu'"),
    ("bandwidth", (CPU, 0), "megabytes=0"), ("bandwidth", (CPU, 16, 0), "repeats=0"),
    ("take_turns", ({},), "jobs={}: expected functions by their names"),
    ("take_turns", ([print],), "jobs="), ("take_turns", ({"a": 1},), "jobs="),
    ("take_turns", ({"a": int}, 0), "n_rounds=0"), ("take_turns", ({"a": int}, 2.0), "n_rounds"),
    ("take_turns", ({"a": int}, 1, float("nan")), "least=nan"),
    ("take_turns", ({"a": int}, 1, -1), "least=-1"),
    ("limited", (1, 1), "job=1"), ("limited", (int, 0), "seconds=0"),
    ("limited", (int, float("inf")), "seconds=inf")])
def test_what_cannot_be_meant_is_refused_by_name(function, args, named):
    with pytest.raises((ValueError, TypeError), match=f"^{function}: {re.escape(named)}"):
        getattr(runtime, function)(*args)


def test_a_device_may_be_named_and_numbers_be_numpy_s():
    assert runtime.device_name("cpu") == runtime.device_name(CPU)
    assert runtime.peak_flops("cpu", np.int64(8), np.int32(1)) > 0
    same = runtime.setup(np.int64(3)), runtime.setup(3)
    assert same[0].normal() == same[1].normal()


@pytest.mark.parametrize("name", ["gpu", "cpu:x", "0", "warp", "cuda:99"])
def test_a_device_that_is_not_here_is_refused_by_the_variable_s_name(name, monkeypatch):
    monkeypatch.setenv("DEVICE", name)
    with pytest.raises(ValueError, match=f"^DEVICE='{name}': expected a device that is present"):
        runtime.device()


def test_a_clock_that_stands_still_gives_a_finite_rate(monkeypatch):
    monkeypatch.setattr(runtime.time, "perf_counter", lambda: 1.0)
    assert 0 < runtime.peak_flops(CPU, n=1, repeats=1) < float("inf")
    assert 0 < runtime.bandwidth(CPU, megabytes=1, repeats=1) < float("inf")


def test_a_limited_job_returns_raises_or_is_ended():
    assert runtime.limited(lambda: 5, 60) == 5
    with pytest.raises(KeyError, match="a"):
        runtime.limited(lambda: {}["a"], 60)
    counted = []

    def endless():
        while True:
            counted.append(1)

    assert runtime.limited(endless, 0.1) is None
    seen = len(counted)
    time.sleep(0.1)
    assert len(counted) == seen > 0
