"""Twins: the tests marked `gpu`, and one short run on the device beside the same run on the CPU."""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from helpers import data, runtime
from helpers.transformer import training
from helpers.transformer.models import GPT, GPTConfig
from helpers.transformer.training import TrainConfig
from recordings.gpu.kit import Kit

SHAPE = GPTConfig(context=64, n_layer=2, n_head=2, d_model=64)
CONFIG = TrainConfig(lr=3e-3, n_steps=60, batch_size=8, seq=64, warmup_steps=10)


def marked_tests(seconds: float) -> list[dict]:
    """Run the tests marked `gpu` in a process of their own: name, outcome, seconds of each."""
    files = sorted(f for f in (runtime.ROOT / "tests").rglob("test_*.py")
                   if "mark.gpu" in f.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        report, settings = Path(folder) / "report.xml", Path(folder) / "pytest.ini"
        settings.write_text("[pytest]\nmarkers = gpu\n")
        environment = {k: v for k, v in os.environ.items() if k != "DEVICE"}
        subprocess.run([sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-c", str(settings),
                        "--rootdir", str(runtime.ROOT), "--noconftest", "-p", "no:cacheprovider",
                        f"--junitxml={report}", *map(str, files)], cwd=runtime.ROOT,
                       env=environment | {"PYTHONPATH": str(runtime.ROOT)}, timeout=seconds,
                       capture_output=True, check=False)
        cases = ElementTree.parse(report).getroot().iter("testcase")
        return [{"test": case.get("name"), "ms": 1e3 * float(case.get("time")),
                 "outcome": next((part.tag for part in case if part.tag != "system-out"), "passed")}
                for case in cases]


def twins(kit: Kit) -> None:
    """Rows of gpu_twins.csv: a test's outcome, or the losses of a run on both devices."""
    if not kit.has("twins", {"what": "marked tests", "dtype": ""}):
        found = marked_tests(max(kit.left, 5))
        bad = [case["test"] for case in found if case["outcome"] not in ("passed", "skipped")]
        skipped = sum(case["outcome"] == "skipped" for case in found)
        kit.row("twins", {"what": "marked tests", "dtype": ""}, lambda: {
            "n": len(found) - skipped, "failed": " ".join(bad), "loss_cpu": float("nan"),
            "loss_device": float("nan"), "largest_gap": float("nan")})
    tokens = data.encode(data.prose()[:40])
    batches = data.TokenBatches(tokens[:-40_000], CONFIG.batch_size, CONFIG.seq)
    held = data.windows(tokens[-40_000:], 200, CONFIG.seq)
    for dtype in ("float32", "bfloat16"):
        def both(dtype=dtype):
            config = replace(CONFIG, dtype=dtype, n_steps=20 if kit.toy else CONFIG.n_steps)
            losses, ends = [], []
            for device in ("cpu", kit.device):
                model = GPT(SHAPE).to(device)
                optimizer = training.make_optimizer(model, config)
                losses.append(training.run_steps(model, optimizer, batches, config, 0,
                                                 config.n_steps))
                ends.append(training.evaluate(model, held))
            return {"n": config.n_steps, "failed": "", "loss_cpu": ends[0], "loss_device": ends[1],
                    "largest_gap": float(np.abs(np.subtract(*losses)).max())}
        torch.manual_seed(0)
        kit.row("twins", {"what": "one run", "dtype": dtype}, both)
