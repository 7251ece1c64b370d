"""For every test: no network, an empty progress file, the quick profile, the CPU."""

import os
import runpy
import shutil
import tempfile
from pathlib import Path

import pytest

from tools import sync

collect_ignore_glob = ["notebooks/*.kept-*"]  # copies of what a learner wrote: see tools/sync.py
OFFLINE = Path(__file__).parent / "tests" / "offline"


def pytest_configure(config):
    """In the first process, before workers and kernels start: they inherit the environment."""
    os.environ.setdefault("PROFILE", "quick")
    os.environ.setdefault("DEVICE", "cpu")  # what the stored outputs were made on
    os.environ.setdefault("GOMP_SPINCOUNT", "0")  # a waiting thread leaves its core to the others
    if "OFFLINE_LOG" in os.environ:
        return  # a worker, or a test run inside a test: guarded already
    config.scratch = Path(tempfile.mkdtemp(prefix="course-"))
    for name in [name for name in os.environ if name.startswith(sync.LEFT_OUT)]:
        del os.environ[name]  # no kernel had them when the outputs were stored
    os.environ["IPYTHONDIR"] = str(config.scratch / "ipython")
    os.environ["OFFLINE_LOG"] = str(config.scratch / "offline.log")
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(OFFLINE), *([path] if path else [])])
    runpy.run_path(str(OFFLINE / "sitecustomize.py"))


def pytest_unconfigure(config):
    if hasattr(config, "scratch"):
        del os.environ["OFFLINE_LOG"]
        shutil.rmtree(config.scratch, ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Each file of tests, and each notebook before its kernel starts, has its own progress."""
    scratch = Path(os.environ["OFFLINE_LOG"]).parent
    os.environ["COURSE_PROGRESS"] = str(scratch / f"{item.path.stem}-{os.getpid()}.json")


def network_log(config) -> str:
    """What tried to reach the network, one line each; empty in a worker."""
    log = getattr(config, "scratch", Path()) / "offline.log"
    return log.read_text(encoding="utf-8") if log.is_file() else ""


def pytest_sessionfinish(session):
    if network_log(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    if log := network_log(config):
        terminalreporter.section("network", red=True)
        terminalreporter.write(f"Failed: these tried to reach the network.\n{log}")
