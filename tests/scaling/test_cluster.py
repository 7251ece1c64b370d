"""The Ray engine: a two-node cluster on this machine, with a worker killed on the way."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from helpers.scaling.sweeps import Trial, sweep

pytest.importorskip("ray", reason="pip install -e .[cluster]")

STEP = 4 * 16
TRIALS = [Trial(16, 1, 3e-3, tuple(n * STEP for n in (400, 1600, 6400)), seed=seed, seq=16,
                n_validation=5) for seed in range(3)]
PROGRAM = """
import sys
import psutil
import ray
from helpers.scaling.sweeps import Trial, sweep

killed = False
for status in sweep({trials!r}, sys.argv[1], engine="ray", every=0.2):
    if status.done == 1 and not killed:
        busy = [p for p in psutil.process_iter(["cmdline"])
                if "ray::_work" in " ".join(p.info["cmdline"] or [])]
        print(len(ray.nodes()), "nodes,", len(busy), "workers")
        busy[0].kill()
        killed = True
    if status.note:
        print(status.note)
"""


@pytest.fixture
def cluster(tmp_path):
    """The environment of a cluster of two nodes with one CPU each.

    Ray's processes call each other by this machine's own address and look for a cloud around it,
    so they run without the guard that keeps the tests offline.
    """
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4, encoding="utf-8")
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token),
                "RAY_USAGE_STATS_ENABLED": "0", "DEVICE": "cpu"}
    env = {name: value for name, value in os.environ.items()
           if name not in ("OFFLINE_LOG", "PYTHONPATH")} | settings
    ray = Path(sys.executable).with_name("ray")

    def call(*options):
        done = subprocess.run([ray, *options], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    start = ["start", "--num-cpus=1", "--object-store-memory=100000000"]
    call(*start, "--head", "--port=6399", "--include-dashboard=false", "--disable-usage-stats")
    try:
        call(*start, "--address=127.0.0.1:6399")
        yield {**env, "RAY_ADDRESS": "127.0.0.1:6399"}
    finally:
        call("stop", "--force")


def test_two_nodes_and_a_killed_worker_give_the_same_numbers(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("DEVICE", "cpu")
    program, there, here = (tmp_path / name for name in ("drill.py", "ray.csv", "here.csv"))
    program.write_text(PROGRAM.format(trials=TRIALS), encoding="utf-8")
    drill = subprocess.run([sys.executable, program, there], env=cluster, text=True,
                           capture_output=True, check=False, timeout=600)
    assert drill.returncode == 0, drill.stderr
    assert "2 nodes, 2 workers" in drill.stdout
    assert "a worker was lost" in drill.stdout
    list(sweep(TRIALS, here))
    rows, same = (dict(pd.read_csv(path)[["key", "loss"]].to_numpy()) for path in (there, here))
    assert rows == same
    assert len(rows) == 9
    assert not (tmp_path / "ray.trials").exists()
