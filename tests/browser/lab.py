"""A JupyterLab server on a copy of the notebooks, and a Chromium that sees nothing else."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
HANDLE = ".widget-slider:has(.widget-label:text-is('{label}')) .noUi-handle"
KERNEL = "window.jupyterapp?.shell.currentWidget?.context?.sessionContext"
QUIET = {  # no news pop-up; every cell is in the page, also those out of sight
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    "notebook-extension/tracker": '{"windowingMode": "none"}',
}
FLAGS = ["--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run",
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"]


def browser() -> str | None:
    """Path of the system's Chromium, or of Playwright's own; None if there is neither."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def get(url: str, token: str, method: str = "GET") -> bytes:
    """The server's answer; raises OSError while it does not listen or refuses."""
    request = urllib.request.Request(url, headers={"Authorization": f"token {token}"},
                                     method=method)
    with urllib.request.urlopen(request, timeout=5) as reply:
        return reply.read()


def wait_for_server(process: subprocess.Popen, url: str, token: str, log: Path,
                    seconds: float = 120) -> None:
    """Return once the server answers; raise RuntimeError with its log if it ends or is silent."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        try:
            get(f"{url}/api/status", token)
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("JupyterLab did not start:\n" + log.read_text(errors="replace")[-2000:])


def shut_down(process: subprocess.Popen, url: str, token: str) -> None:
    """End the server and its kernels; by force after 30 seconds."""
    with suppress(OSError):
        get(f"{url}/api/shutdown", token, "POST")
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def make_lab() -> Iterator[tuple[str, str]]:
    """What a learner starts: `make lab`, without its browser, as (address, token).

    The environment counts as made (`-o`), so that nothing is installed meanwhile.
    """
    port, token = free_port(), secrets.token_hex(16)
    url = f"http://127.0.0.1:{port}"
    options = f"--no-browser --port={port} --IdentityProvider.token={token}"
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with open(log, "wb") as sink:
            process = subprocess.Popen(["make", "-o", ".venv/.installed", "lab",
                                        f"LAB_ARGS={options}"], cwd=NOTEBOOKS.parent,
                                       stdout=sink, stderr=subprocess.STDOUT)
        try:
            wait_for_server(process, url, token, log)
            yield url, token
        finally:
            shut_down(process, url, token)


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, str]]:
    """JupyterLab on a copy of the notebooks in `folder`, as (address, token)."""
    shutil.copytree(NOTEBOOKS, folder / "notebooks",
                    ignore=shutil.ignore_patterns(".ipynb_checkpoints", ".progress.json"))
    for name, text in QUIET.items():
        settings = folder / f"settings/@jupyterlab/{name}.jupyterlab-settings"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(text)
    own = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
           "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data",
           "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython"}
    port, token = free_port(), secrets.token_hex(16)
    url = f"http://127.0.0.1:{port}"
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
             "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}",
             "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder / 'notebooks'}",
             "--LabApp.expose_app_in_browser=True"],
            env=os.environ | {name: str(folder / value) for name, value in own.items()}
            | {"JUPYTER_TOKEN": token},
            stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for_server(process, url, token, folder / "server.log")
        yield url, token
    finally:
        shut_down(process, url, token)


@contextmanager
def page(executable: str) -> Iterator[Page]:
    """An empty page. `page.requests` and `page.errors` fill with addresses and console errors."""
    root = ["--no-sandbox"] if hasattr(os, "getuid") and os.getuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=[*FLAGS, *root])
        new = chromium.new_page(viewport={"width": 1200, "height": 900})
        new.requests, new.errors = [], []
        new.on("request", lambda request: new.requests.append(request.url))
        new.on("websocket", lambda socket: new.requests.append(socket.url))
        new.on("pageerror", lambda error: new.errors.append(str(error)))
        new.on("console", lambda message: new.errors.append(message.text)
               if message.type == "error" else None)
        yield new
        chromium.close()


def run_notebook(page: Page, url: str, token: str, notebook: str, seconds: float = 1800) -> None:
    """Open a notebook, wait for its kernel, run all cells, wait until they are done.

    Running cells before the session is ready would open a dialogue that asks for a kernel. Each
    notebook has its own workspace: a shared one would open the notebooks before it again.
    """
    page.goto(f"{url}/lab/workspaces/{notebook[:2]}/tree/{notebook}?token={token}")
    idle = f"{KERNEL}?.isReady && {KERNEL}.session?.kernel?.status === 'idle'"
    page.wait_for_function(idle, timeout=seconds * 1000)
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')"
                  ".then(() => { window.allCellsRan = true; }); 0")
    page.wait_for_function("window.allCellsRan", timeout=seconds * 1000)


class Widget:
    """The widget whose slider has this label: its handle, its picture, its text."""

    def __init__(self, page: Page, label: str):
        self.page = page
        self.handle = page.locator(HANDLE.format(label=label)).first
        self.box = page.locator(".widget-vbox", has=self.handle).last
        self.canvas, self.text = (self.box.locator(f".course-{part}") for part in
                                  ("canvas", "readout"))

    def picture(self) -> str:
        """The canvas's pixels, as the address of a PNG."""
        return self.canvas.evaluate("canvas => canvas.toDataURL()")

    def press(self, key: str) -> None:
        """Press a key on the handle, as a keyboard user would."""
        self.handle.focus()
        self.page.keyboard.press(key)
