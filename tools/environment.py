"""Make the course's environment `.venv` and fill it from requirements.txt. Safe to run again.

The Makefile calls it when requirements.txt or pyproject.toml is newer than `.venv/.installed`.
It runs before anything is installed, so it uses the standard library alone.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENV = ROOT / ".venv"
ENV_PYTHON = ENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = ENV / ".installed"
OLDEST = (3, 11)
PAGE = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}  # no pop-up
CUDA_NOTE = """\
note: on Linux, torch brings several GB of CUDA packages, and no NVIDIA driver was found here.
      To do without them: stop now (Ctrl-C); at https://pytorch.org/get-started choose Linux,
      Pip, CPU; take the command shown there, write {torch} for its packages and
      {python} -m pip for its pip3; run it, then your command again.
"""
# What pip says when it fails, and what to do about it; the first match counts.
ADVICE = [
    (r"No space left|Errno 28|WinError 112",
     "The disk is full. The environment takes 2 GB, on Linux with CUDA about 8 GB. Make room."),
    (r"NewConnectionError|Failed to establish|NameResolution|getaddrinfo|ConnectTimeout|ReadTimeout"
     r"|ProxyError|Connection (?:refused|reset|aborted)|Network is unreachable",
     "The package index does not answer. Check the network, and HTTPS_PROXY if you are behind a\n"
     "proxy. What is downloaded already is kept."),
    (r"requirement (\S+) \(from versions: none\)",
     "The package index did not offer any {0}. Check the network, and HTTPS_PROXY if you are\n"
     "behind a proxy. If both are well, this Python ({1} on {2}) is not served: use 3.11, 3.12\n"
     "or 3.13 (64 bit), as in: make lab PYTHON=python3.12."),
    (r"CERTIFICATE_VERIFY_FAILED|SSLError",
     "The package index's certificate was refused. Behind a company's proxy, name its certificate\n"
     "file in PIP_CERT."),
    (r"No matching distribution found for (\S+)",
     "There is no {0} for this Python ({1} on {2}). Use Python 3.11, 3.12 or 3.13 (64 bit), as\n"
     "in: make lab PYTHON=python3.12. On a Mac with an Intel chip torch has no such version: use\n"
     "another machine."),
    (r"Permission denied|Access is denied|WinError 5|WinError 32|being used by another process",
     "A file could not be written. Close every JupyterLab of this course, and see that the folder\n"
     "is yours."),
    (r"", "The lines above say what failed. If it fails again, delete the folder .venv and retry."),
]


def say(text: str) -> None:
    print(f"environment: {text}", flush=True)


def stop(text: str) -> None:
    sys.exit("\nThe environment is not ready. What to do:\n" + text
             + "\nThen run your command again; it goes on from here.")


def version_of(python: str) -> tuple:
    """(major, minor) of an interpreter that has pip, or () if it does not run."""
    code = "import sys, pip; print(*sys.version_info[:2])"
    try:
        found = subprocess.run([python, "-c", code], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)
    except OSError:
        return ()
    return tuple(map(int, found.stdout.split())) if found.returncode == 0 else ()


def check_python() -> None:
    """Stop unless this Python is new enough; name one that is, if the machine has it."""
    if sys.version_info[:2] >= OLDEST:
        return
    newer = [f"python3.{minor}" for minor in (13, 12, 11) if shutil.which(f"python3.{minor}")]
    stop(f"This is Python {sys.version.split()[0]}; the course needs 3.11 or newer.\n"
         + (f"You have one: make lab PYTHON={newer[0]}" if newer else
            "Get one from https://www.python.org/downloads or with conda (environment.yml), then:\n"
            "make lab PYTHON=python3.12"))


def make_venv() -> None:
    """Make `.venv`, or keep one that works: it was complete once, or has this very version."""
    version = version_of(str(ENV_PYTHON))
    if version >= OLDEST and (STAMP.exists() or version == sys.version_info[:2]):
        say(f"using .venv (Python {version[0]}.{version[1]})")
        return
    check_python()
    say(f"making .venv with Python {sys.version.split()[0]}")
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENV)],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if made.returncode:
        print(made.stdout)
        if "ensurepip" in made.stdout:
            stop("This Python comes without ensurepip. On Debian or Ubuntu: sudo apt install "
                 f"python3.{sys.version_info[1]}-venv\nElsewhere: a Python from "
                 "https://www.python.org/downloads, or conda with environment.yml.")
        stop(advice(made.stdout))


def install() -> None:
    """pip install -r requirements.txt; progress goes straight to the terminal."""
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    has_torch = any(ENV.glob("lib/python3*/site-packages/torch"))
    if sys.platform == "linux" and not has_torch and not shutil.which("nvidia-smi"):
        torch = re.search(r"^torch\S*", pins, re.MULTILINE).group()
        say(CUDA_NOTE.format(torch=torch, python=ENV_PYTHON.relative_to(ROOT)))
    say("installing requirements.txt (a first time takes minutes)")
    pip = subprocess.Popen(
        [str(ENV_PYTHON), "-m", "pip", "install", "--disable-pip-version-check",
         "-r", "requirements.txt"], cwd=ROOT, stderr=subprocess.PIPE, text=True, errors="replace")
    said = []
    for line in pip.stderr:
        said.append(line)
        print(line, end="", file=sys.stderr, flush=True)
    if pip.wait():
        stop(advice("".join(said)))


def advice(said: str) -> str:
    """What to do about the first known trouble in pip's words."""
    pattern, text = next(entry for entry in ADVICE if re.search(entry[0], said))
    return text.format(*re.search(pattern, said).groups(), sys.version.split()[0], sys.platform)


def main() -> None:
    make_venv()
    install()
    page = ENV / "etc/jupyter/labconfig/page_config.json"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(json.dumps(PAGE), encoding="utf-8")
    STAMP.write_text("requirements.txt is installed here.\n", encoding="utf-8")
    say("ready")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        stop("Nothing is wrong: you stopped it.")
    except OSError as error:
        stop(f"{error}\n{advice(str(error))}")
