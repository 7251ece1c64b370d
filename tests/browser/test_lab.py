"""`make lab` serves the course map, to this machine alone, and asks for the token."""

import json
import shutil
import socket
import urllib.error
from contextlib import suppress
from urllib.parse import urlsplit

import psutil
import pytest

from tests.browser import lab

READY = lab.NOTEBOOKS.parent / ".venv" / ".installed"


@pytest.mark.skipif(not (shutil.which("make") and READY.exists()),
                    reason="make lab needs make and the environment that it makes")
def test_make_lab_listens_on_loopback_and_wants_the_token():
    with lab.make_lab() as (url, token):
        listed = json.loads(lab.get(f"{url}/api/contents/notebooks", token))["content"]
        assert "00_start_here.ipynb" in {entry["name"] for entry in listed}
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            lab.get(f"{url}/api/contents/notebooks", "a-wrong-token")
        refused.value.close()
        port = urlsplit(url).port
        connections = []
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it may end meanwhile
                connections += process.net_connections("tcp")
        assert {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN
                and c.laddr.port == port} == {"127.0.0.1"}
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
