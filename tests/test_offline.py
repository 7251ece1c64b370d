"""Nothing resolves a name. conftest.py fails a run in which anything tries; here: the guard bites.

In each kind of process the tests use, a look-up and a connection must be refused and logged. The
names and addresses are reserved ones that no network answers.
"""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

ROOT = Path(__file__).parent.parent
TRIES = """
import socket
for reach in (lambda: socket.getaddrinfo("course.invalid", 80),
              lambda: socket.gethostbyname("course.invalid"),
              lambda: socket.create_connection(("192.0.2.1", 80), timeout=1)):
    try:
        reach()
    except OSError as error:
        print(error)
"""
REFUSED = ["socket.getaddrinfo 'course.invalid'", "socket.gethostbyname 'course.invalid'",
           "socket.getaddrinfo '192.0.2.1'"]


@pytest.fixture
def log(tmp_path, monkeypatch):
    """A log of its own, so that these tries do not fail the whole run."""
    monkeypatch.setenv("OFFLINE_LOG", str(tmp_path / "offline.log"))
    return tmp_path / "offline.log"


def assert_refused(text: str, log: Path) -> None:
    assert [line.split("network: ")[1] for line in text.strip().splitlines()] == REFUSED
    assert [line.split("): ")[1] for line in log.read_text().splitlines()] == REFUSED


def test_this_process_reaches_no_host(log, capsys):
    exec(TRIES, {})
    assert_refused(capsys.readouterr().out, log)


def test_a_numeric_address_is_refused_too(log):
    with socket.socket() as s, pytest.raises(OSError, match="without a network"):
        s.connect(("192.0.2.1", 80))
    with (socket.socket(type=socket.SOCK_DGRAM) as s,
          pytest.raises(OSError, match="without a network")):
        s.sendto(b"?", ("192.0.2.53", 53))
    assert len(log.read_text().splitlines()) == 2


def test_a_child_process_reaches_no_host(log):
    child = subprocess.run([sys.executable, "-c", TRIES], capture_output=True, text=True)
    assert_refused(child.stdout, log)


def test_a_notebook_kernel_reaches_no_host(log):
    said = []
    manager, client = start_new_kernel()
    try:
        client.execute_interactive(
            TRIES, timeout=60,
            output_hook=lambda m: said.append(m["content"].get("text", "")))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
    assert_refused("".join(said), log)


def test_loopback_stays_open(log):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("localhost", port), timeout=5):
            pass
    assert not log.exists()


def test_another_sitecustomize_still_runs(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('still here')\n")
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(tmp_path)])
    child = subprocess.run([sys.executable, "-c", ""], capture_output=True, text=True,
                           env=os.environ | {"PYTHONPATH": path})
    assert child.stdout == "still here\n"


def test_a_try_fails_the_whole_run_even_if_the_test_swallows_it(tmp_path):
    shutil.copy(ROOT / "conftest.py", tmp_path)
    for folder in ("tests/offline", "tools"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "test_hidden.py").write_text(f"def test_it():\n    exec({TRIES!r}, {{}})\n")
    unguarded = {k: v for k, v in os.environ.items() if k not in ("OFFLINE_LOG", "PYTHONPATH")}
    run = subprocess.run([sys.executable, "-m", "pytest", "-p", "xdist", "-n", "1"],
                         env=unguarded | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
                         cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout
    assert "1 passed" in run.stdout
    assert "socket.gethostbyname 'course.invalid'" in run.stdout
