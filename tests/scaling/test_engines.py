"""Engines: every job's rows come back, whatever fails, dies or is added meanwhile."""

import os
import time
from collections import deque

import psutil
import pytest

from helpers.scaling import engines


def work(job, factor):
    """Rows of a job; some jobs fail, die once, or wait."""
    name, n = job
    for i in range(n):
        if name == "fails" and i == 1:
            raise ValueError("expected something else")
        if name == "dies" and i == 1:
            os._exit(9)
        yield factor * i


def collect(jobs, n_workers=2):
    rows, ends = {}, {}
    for job, result in engines.processes(deque(jobs), work, n_workers, 10):
        if isinstance(result, Exception):
            ends[job] = result
        else:
            rows.setdefault(job, []).append(result)
    return rows, ends


@pytest.mark.parametrize("n_workers", [1, 3])
def test_every_row_comes_back_in_order(n_workers):
    jobs = [("a", 3), ("b", 0), ("c", 2)]
    assert collect(jobs, n_workers) == ({("a", 3): [0, 10, 20], ("c", 2): [0, 10]}, {})
    assert collect([]) == ({}, {})


def test_a_failure_and_a_death_are_reported_and_the_others_go_on():
    rows, ends = collect([("fails", 3), ("dies", 3), ("good", 3)])
    assert rows == {("fails", 3): [0], ("dies", 3): [0], ("good", 3): [0, 10, 20]}
    assert isinstance(ends[("fails", 3)], ValueError)
    assert "expected something else" in str(ends[("fails", 3)])
    assert isinstance(ends[("dies", 3)], ConnectionError)
    assert "a worker ended with 9" in str(ends[("dies", 3)])


def test_a_job_added_meanwhile_runs_too():
    waiting, seen = deque([("dies", 2)]), []
    for job, result in engines.processes(waiting, work, 1, 1):
        seen.append((job, type(result)))
        if isinstance(result, ConnectionError):
            waiting.append(("again", 1))
    assert seen == [(("dies", 2), int), (("dies", 2), ConnectionError), (("again", 1), int)]


def endless(job):
    """A job that says who it is and never ends."""
    yield os.getpid()
    time.sleep(600)


def test_leaving_ends_the_workers():
    jobs = engines.processes(deque(["a", "b"]), endless, 2)
    pids = [next(jobs)[1] for _ in range(2)]
    jobs.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


class Needy(Exception):
    """Comes back from nothing: unpickling calls it with one argument."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


class Homeless(Exception):
    """Cannot be pickled."""

    def __reduce__(self):
        raise TypeError("no way out")


class Mute(Exception):
    """Cannot even be said."""

    def __reduce__(self):
        raise TypeError("no way out")

    def __str__(self):
        raise ValueError("no words")


def awkward(job):
    """A job that ends as its name says, after one row."""
    yield 1
    if job == "needy":
        raise Needy("one", "two")
    if job == "homeless":
        raise Homeless("lost")
    if job == "mute":
        raise Mute
    if job == "row":
        yield lambda: 0
    if job == "leaves":
        raise SystemExit(0)
    yield 2


def test_what_cannot_be_sent_is_quoted_and_the_others_go_on():
    found = {}
    for job, result in engines.processes(
            deque(["needy", "homeless", "mute", "row", "leaves", "good"]), awkward, 2):
        found.setdefault(job, []).append(result)
    assert {job: results[0] for job, results in found.items()} == dict.fromkeys(found, 1)
    assert found["good"] == [1, 2]
    ends = {job: results[1] for job, results in found.items() if job != "good"}
    for job, words in (("needy", "Needy: one and two"), ("homeless", "Homeless: lost"),
                       ("mute", "Mute")):
        assert isinstance(ends[job], RuntimeError)
        assert words in str(ends[job])
    assert "pickle" in str(ends["row"]).lower()
    assert isinstance(ends["leaves"], ConnectionError)  # it did not say that it was through
    assert "ended with 0" in str(ends["leaves"])


@pytest.mark.parametrize(("n_workers", "kind"), [(0, ValueError), (-1, ValueError),
                                                 (None, TypeError), (True, TypeError)])
def test_a_number_of_workers_that_would_never_end_is_refused(n_workers, kind):
    for engine in engines.ENGINES.values():
        with pytest.raises(kind, match=f"n_workers={n_workers}: expected a whole number ≥ 1"):
            engine(deque(["a"]), awkward, n_workers)
