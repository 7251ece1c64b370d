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
# What pip and venv say when they fail, and what to do about it. {0} is what the pattern caught.
OTHER_PYTHON = ("Use Python 3.11, 3.12 or 3.13 (64 bit), as in: make lab PYTHON=python3.12.\n"
                "This is {python} on {platform}.")
NOT_OFFERED = (
    "The package index did not offer any {0}. Check the network, and HTTPS_PROXY if you are\n"
    "behind a proxy. If both are well, this Python is not served.\n" + OTHER_PYTHON)
CONFLICT = (
    "The versions asked for exclude each other. If you changed requirements.txt: git checkout\n"
    "requirements.txt. If not, see whether PIP_CONSTRAINT or `pip config list` names others.")
ADVICE = [  # on one line, the first match counts
    (r"No space left|Errno 28\b|WinError 112|Disk quota exceeded|Errno 122",
     "The disk is full. The environment takes 2 GB, on Linux with CUDA about 8 GB. Make room."),
    (r"TLS CA certificate bundle",
     "The certificate file that PIP_CERT, REQUESTS_CA_BUNDLE or `pip config list` names is not\n"
     "there. Name the right one in PIP_CERT, or none."),
    (r"(?i)ssl module (?:is|in Python is) not available|'ssl' module is unavailable|ssl-missing",
     "This Python was built without SSL, so pip cannot reach the package index.\n" + OTHER_PYTHON),
    (r"407 Proxy",
     "Your proxy asks for a name and a password: HTTPS_PROXY=http://name:password@host:port"),
    (r"WRONG_VERSION_NUMBER|changing your proxy URL|SOCKS support|ProxySchemeUnknown"
     r"|check proxy URL|InvalidProxyURL",
     "HTTPS_PROXY is not of a form that works here. It is nearly always http://host:port, with\n"
     "http:// also for https pages."),
    (r"CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError|certificate verify failed"
     r"|ssl-verification-failed|confirming the ssl certificate",
     "The package index's certificate was refused. Behind a company's proxy, name its certificate\n"
     "file in PIP_CERT. Elsewhere, see that this machine's clock is right."),
    (r"HTTP error 4\d\d|4\d\d Client Error|4\d\d Error, Cred|4\d\d Forbidden",
     "The package index, or a proxy before it, refused to hand out a file. See which index pip\n"
     "uses, and with which credentials: PIP_INDEX_URL, and `pip config list`."),
    (r"DO NOT MATCH THE HASHES|BadZipFile|is invalid\.$|[Ii]ncomplete-?[Rr]ead|incomplete-download"
     r"|not enough bytes",
     "A download arrived damaged or cut short. If that repeats, set PIP_NO_CACHE_DIR=1. A proxy\n"
     "may change or cut large files."),
    (r"NewConnectionError|Failed to establish|NameResolution|getaddrinfo|Connect(?:ion)?Timeout"
     r"|ReadTimeout|ProxyError|ProtocolError|[Cc]onnection (?:refused|reset|aborted|broken)"
     r"|RemoteDisconnected|SSLError|Network is unreachable|Read timed out|Max retries"
     r"|HTTP error 5\d\d|5\d\d Server Error|too many 5\d\d|connection-(?:failed|timeout)"
     r"|proxy-connection-failed",
     "The package index does not answer. Check the network, and HTTPS_PROXY if you are behind a\n"
     "proxy. What is downloaded already is kept."),
    (r"requirement (\S+).*\(from versions: none\)", NOT_OFFERED),
    (r"requirement (\S+).*\(from versions: |(\S+) is not a supported wheel",
     "There is no {0} for this Python. " + OTHER_PYTHON
     + "\nOn a Mac with an Intel chip torch has no such version: use another machine."),
    (r"Cannot install (.+) because", CONFLICT),
    (r"perform a '--user' install",
     "PIP_USER, or `pip config list`, asks for an installation elsewhere. Unset it."),
    (r"externally-managed-environment",
     "The folder .venv is no environment of its own. Delete it."),
    (r"ensurepip is (?:not|disabled)|No module named '?(?:ensurepip|venv)",
     "This Python comes without ensurepip. On Debian or Ubuntu: sudo apt install\n"
     "python3.{minor}-venv\nElsewhere: a Python from https://www.python.org/downloads, or conda\n"
     "with environment.yml."),
    (r"Read-only file system|Errno 30\b",
     "This folder cannot be written to. Copy the course to a disk that can."),
    (r"Long Path support|File name too long|WinError 206",
     "The path is too long for this system. Move the course to a shorter one, such as C:\\course."),
    (r"Permission denied|Errno 13\b|Access is denied|WinError 5\b|WinError 32\b"
     r"|being used by another process|Operation not permitted",
     "A file could not be written. Close every JupyterLab of this course, and see that the folder\n"
     "is yours."),
    (r"^\s*MemoryError|Cannot allocate memory",
     "Memory ran out. Close other programs, and set PIP_NO_CACHE_DIR=1."),
    (r"Could not open requirements file|Invalid requirement",
     "requirements.txt cannot be read. Take the course's own: git checkout requirements.txt"),
]
LAST_ADVICE = [  # where no line is known by the patterns above
    (r"No matching distribution found for (\S+)", NOT_OFFERED),
    (r"ResolutionImpossible|resolution-too-deep", CONFLICT),
    (r"subprocess-exited-with-error|Failed building|Could not build wheels|Failed to build"
     r"|failed-(?:wheel-build|build-dep)|metadata-generation-failed",
     "A package is not ready-made for this Python, and could not be built here.\n" + OTHER_PYTHON),
]
UNKNOWN = "The lines above say what failed. If it fails again, delete the folder .venv and retry."
PASSING = r"\s*(?:WARNING: |Could not fetch URL )"  # what pip says on its way, before it gives up


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
    for command in ([sys.executable, "-m", "venv", "--clear", "--without-pip", str(ENV)],
                    [str(ENV_PYTHON), "-I", "-m", "ensurepip", "--upgrade", "--default-pip"]):
        made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace")  # in two steps: venv keeps pip's words to itself
        if made.returncode:
            print(made.stdout)
            stop(advice(made.stdout))


def install() -> None:
    """pip install -r requirements.txt; progress goes straight to the terminal."""
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    has_torch = any(ENV.glob("lib/python3*/site-packages/torch"))
    if sys.platform == "linux" and not has_torch and not shutil.which("nvidia-smi"):
        torch = re.search(r"^torch\S*", pins, re.MULTILINE).group()
        say(CUDA_NOTE.format(torch=torch, python=ENV_PYTHON.relative_to(ROOT)))
    say("installing requirements.txt (a first time takes minutes)")
    said = []
    with subprocess.Popen(
            [str(ENV_PYTHON), "-m", "pip", "install", "--disable-pip-version-check",
             "-r", "requirements.txt"],
            cwd=ROOT, stderr=subprocess.PIPE, text=True, errors="replace") as pip:
        for line in pip.stderr:
            said.append(line)
            print(line, end="", file=sys.stderr, flush=True)
    status = pip.returncode
    if status == -9:  # the system killed it: it does so when memory runs out
        said.append("MemoryError")
    if status:
        stop(advice("".join(said)))


def advice(said: str) -> str:
    """What to do about the trouble that the words of pip or venv end with.

    The last line that is known counts; a full disk counts wherever it stands, since what follows
    from it goes by many names. A warning counts where the end only says that something was
    not to be had: the last one about this thing says why.
    """
    lines = said.splitlines()
    errors = [line for line in lines if not re.match(PASSING, line)]
    known = (_last(errors, known) for known in (ADVICE[:1], ADVICE, LAST_ADVICE))
    text, caught = next(filter(None, known), (UNKNOWN, ""))
    if text in (NOT_OFFERED, CONFLICT, UNKNOWN):
        name = re.sub("[-_.]+", "-", re.split(r"[^\w.-]", caught)[0]).lower()
        about = {NOT_OFFERED: f"/{name}/", CONFLICT: "(total=0,"}.get(text, "")  # the last attempt
        passing = [line for line in lines if re.match(PASSING, line)
                   and (about in line or "TLS/SSL" in line)]
        text, caught = _last(passing, ADVICE) or (text, caught)
    return text.format(caught, python=sys.version.split()[0], platform=sys.platform,
                       minor=sys.version_info[1])


def _last(lines: list, known: list):
    """The advice for the last line that is known, and what its pattern caught; or None."""
    for line in reversed(lines):
        for pattern, text in known:
            found = re.search(pattern, line)
            if found:
                return text, next(filter(None, found.groups()), "")
    return None


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
