"""Seeds, profile, device and measured peak: the machine behind the other tests."""

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
