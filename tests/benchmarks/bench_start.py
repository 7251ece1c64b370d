"""How long a second `make lab` takes until the server answers."""

import secrets
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from tests.browser import lab

ROOT = Path(__file__).resolve().parents[2]


def start() -> float:
    """Seconds from the command to the first answer."""
    port, token = lab.free_port(), secrets.token_hex(16)
    url = f"http://127.0.0.1:{port}"
    options = f"--no-browser --port={port} --IdentityProvider.token={token}"
    with tempfile.NamedTemporaryFile() as log:
        begin = time.perf_counter()
        process = subprocess.Popen(["make", "lab", f"LAB_ARGS={options}"], cwd=ROOT,
                                   stdout=log, stderr=subprocess.STDOUT)
        try:
            lab.wait_for_server(process, url, token, Path(log.name))
            return time.perf_counter() - begin
        finally:
            lab.shut_down(process, url, token)


def rows():
    start()  # the first one, which may install
    yield "second start of make lab, median of 3", statistics.median(
        start() for _ in range(3)), "s", 10
