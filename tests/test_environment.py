"""What to do when pip or venv fail: their own words, and the advice that follows from them."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from tools import environment

NONE = """\
ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: none)
ERROR: No matching distribution found for torch==2.13.0
"""
OLDER = """\
ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: 1.11.0\
, 1.12.0, 2.2.2)
ERROR: No matching distribution found for torch==2.13.0
"""
FULL = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
CONFLICT = """\
ERROR: Cannot install -r requirements.txt (line 3) and numpy==2.4.6 because these package versions \
have conflicting dependencies.
ERROR: ResolutionImpossible: for help visit https://pip.pypa.io/en/latest/topics/dependency-\
resolution/#dealing-with-dependency-conflicts
"""
BUILD = """\
  error: subprocess-exited-with-error

  × Building wheel for constriction (pyproject.toml) did not run successfully.
  │ exit code: 1
  ╰─> [4 lines of output]
      running build_ext
      error: can't find Rust compiler
      [end of output]

  note: This error originates from a subprocess, and is likely not a problem with pip.
  ERROR: Failed building wheel for constriction
ERROR: Could not build wheels for constriction, which is required to install pyproject.toml-based \
projects
"""
CERT = """SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate \
verify failed: self-signed certificate in certificate chain (_ssl.c:1006)'))"""
REFUSED = """NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f>: \
Failed to establish a new connection: [Errno 111] Connection refused')"""
SLOW = """ReadTimeoutError("HTTPSConnectionPool(host='pypi.org', port=443): Read timed out. \
(read timeout=15)")"""
MALFORMED = "Please check proxy URL. It is malformed"
POOL = "HTTPSConnectionPool(host='files.pythonhosted.org', port=443)"
DOWNLOAD = "/packages/ab/torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl"


def retries(cause: str, name: str = "torch", left=range(4, -1, -1)) -> str:
    return "".join(f"WARNING: Retrying (Retry(total={n}, connect=None, read=None, redirect=None, "
                   f"status=None)) after connection broken by '{cause}': /simple/{name}/\n"
                   for n in left)


def proxy(cause: str) -> str:
    return f"ProxyError('Cannot connect to proxy.', {cause})"


def crash(last: str) -> str:
    return ("ERROR: Exception:\nTraceback (most recent call last):\n"
            '  File "/x/pip/_vendor/urllib3/response.py", line 407, in _error_catcher\n'
            f"    yield\n{last}\n")


def os_error(text: str, hint: str = "") -> str:
    return f"ERROR: Could not install packages due to an OSError: {text}\n{hint}"


NETWORK, CERTIFICATE, DISK = "does not answer", "PIP_CERT", "disk is full"
NOT_OFFERED, NO_SUCH, EXCLUDE = "did not offer any torch==2.13.0", "no torch==2.13.0", "exclude"
DAMAGED, WRITTEN, INDEX = "damaged or cut short", "could not be written", "refused to hand out"
WORDS = {  # name: what pip or venv said, and what the advice must say
    "refused": (retries(REFUSED) + NONE, NETWORK),
    "refused, pip 26": (retries("""NewConnectionError("HTTPSConnection(host='pypi.org', port=443): \
Failed to establish a new connection: [Errno 101] Network is unreachable")""") + NONE, NETWORK),
    "no name, Windows": (retries(REFUSED.replace("111] Connection refused", "11001] getaddrinfo "
                                                 "failed")) + NONE, NETWORK),
    "no name, pip 26": (retries("""NameResolutionError("HTTPSConnection(host='pypi.org', port=443):\
 Failed to resolve 'pypi.org' ([Errno -2] Name or service not known)")""") + NONE, NETWORK),
    "slow": (retries(SLOW) + NONE, NETWORK),
    "dead proxy": (retries(proxy(REFUSED)) + NONE, NETWORK),
    "reset": (retries("ProtocolError('Connection aborted.', ConnectionResetError(104, 'Connection "
                      "reset by peer'))") + NONE, NETWORK),
    "cut handshake": (retries("SSLError(SSLEOFError(8, 'EOF occurred in violation of protocol "
                              "(_ssl.c:1006)'))") + NONE, NETWORK),
    "index is ill": (retries("ResponseError('too many 503 error responses')") + NONE, NETWORK),
    "diagnosis": ("error: connection-failed\n\n× Failed to connect to pypi.org while fetching "
                  "https://pypi.org/simple/torch/\n╰─> [Errno 111]\n\nhint: Are you connected to "
                  "the Internet? There may be a firewall or proxy.\n", NETWORK),
    "file times out": (crash(f"pip._vendor.urllib3.exceptions.ReadTimeoutError: {POOL}: Read timed "
                             "out."), NETWORK),
    "file unreachable": (os_error(f"{POOL}: Max retries exceeded with url: {DOWNLOAD} (Caused by "
                                  f"{REFUSED})"), NETWORK),
    "certificate": (retries(CERT) + NONE, CERTIFICATE),
    "certificate, could not fetch": (
        f"{retries(CERT)}Could not fetch URL https://pypi.org/simple/torch/: There was a problem "
        f"confirming the ssl certificate: {POOL}: Max retries exceeded with url: /simple/torch/ "
        f"(Caused by {CERT}) - skipping\n{NONE}", CERTIFICATE),
    "certificate of a proxy": (retries(proxy(CERT)) + NONE, CERTIFICATE),
    "certificate, connection error": (os_error(
        f"{POOL}: Max retries exceeded with url: {DOWNLOAD} (Caused by ConnectionError({CERT}))"),
        CERTIFICATE),
    "certificate, warnings alone": (retries(CERT), CERTIFICATE),
    "certificate, under a constraint": (retries(CERT) + CONFLICT, CERTIFICATE),
    "certificate file missing": (os_error("Could not find a suitable TLS CA certificate bundle, "
                                          "invalid path: /x.pem"), "is not\nthere"),
    "no ssl": ("WARNING: pip is configured with locations that require TLS/SSL, however the ssl "
               "module in Python is not available.\n" + retries('SSLError("Can\'t connect to HTTPS '
               'URL because the SSL module is not available.")') + NONE, "without SSL"),
    "password": (retries(proxy("OSError('Tunnel connection failed: 407 Proxy Authentication "
                               "Required')")) + NONE, "name:password@"),
    "https for http": (retries(proxy("SSLError(SSLError(1, '[SSL: WRONG_VERSION_NUMBER] wrong "
                                     "version number (_ssl.c:1006)'))")) + NONE, "http://host:port"),
    "SOCKS": (crash("pip._vendor.requests.exceptions.InvalidSchema: Missing dependencies for SOCKS "
                    "support."), "http://host:port"),
    "malformed proxy": (crash(f"pip._vendor.requests.exceptions.InvalidProxyURL: {MALFORMED}"),
                        "http://host:port"),
    "forbidden by a proxy": (retries(proxy("OSError('Tunnel connection failed: 403 Forbidden')"))
                             + NONE, INDEX),
    "forbidden": (f"ERROR: HTTP error 403 while getting https://index.example{DOWNLOAD}\nERROR: "
                  "Could not install requirement torch==2.13.0 because of HTTP error 403 Client "
                  f"Error: Forbidden for url: https://index.example{DOWNLOAD}\n", INDEX),
    "wrong password": ("WARNING: 401 Error, Credentials not correct for https://index.example/"
                       "simple/torch/\n" + NONE, INDEX),
    "not offered": (NONE, NOT_OFFERED),
    "not offered, no other line": (NONE.splitlines()[1], NOT_OFFERED),
    "other versions": (OLDER, NO_SUCH),
    "other Pythons": ("ERROR: Ignored the following versions that require a different python "
                      "version: 2.13.0 Requires-Python >=3.11\n" + OLDER, NO_SUCH),
    "other platform": ("ERROR: torch-2.13.0-cp311-cp311-win32.whl is not a supported wheel on this "
                       "platform.\n", "no torch-2.13.0-cp311-cp311-win32.whl"),
    "hashes": ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you "
               "have updated the package versions, please update the hashes.\n    torch==2.13.0 "
               f"from https://files.pythonhosted.org{DOWNLOAD}:\n        Expected sha256 28407\n"
               "             Got        40728\n", DAMAGED),
    "interrupted": (crash("pip._vendor.urllib3.exceptions.ProtocolError: ('Connection broken: "
                          "IncompleteRead(8192 bytes read, 99 more expected)', IncompleteRead())"),
                    DAMAGED),
    "interrupted, pip 26": ("error: incomplete-download\n\n× Download failed after 6 attempts "
                            "because not enough bytes were received (1.2 MB/899 MB)\n╰─> URL: "
                            "https://files.pythonhosted.org/x.whl\n\nnote: This is an issue with "
                            "network connectivity, not pip.\n", DAMAGED),
    "broken archive": (crash("zipfile.BadZipFile: Bad magic number for file header"), DAMAGED),
    "conflict": (CONFLICT, EXCLUDE),
    "disk": (FULL, DISK),
    "disk, Windows": (os_error("[WinError 112] There is not enough space on the disk"), DISK),
    "quota": (os_error("[Errno 122] Disk quota exceeded: '/home/x/.venv'"), DISK),
    "disk, in venv": ("Error: [Errno 28] No space left on device: '/x/.venv/bin/python'\n", DISK),
    "disk, in ensurepip": (
        f"{FULL}Error: Command '['/x/.venv/bin/python', '-m', 'ensurepip', '--upgrade', "
        "'--default-pip']' returned non-zero exit status 1.\n", DISK),
    "disk, then ensurepip": (f"{FULL}The virtual environment was not created successfully because "
                             "ensurepip is not available.\n", DISK),
    "disk, while a wheel is built": (BUILD.replace("can't find Rust compiler", "No space left on "
                                                   "device (os error 28)"), DISK),
    "permission": (os_error("[Errno 13] Permission denied: '/x/.venv/lib'", "Consider using the "
                            "`--user` option or check the permissions.\n"), WRITTEN),
    "in use": (os_error("[WinError 32] The process cannot access the file because it is being used "
                        "by another process: 'c10.dll'", "Check the permissions.\n"), WRITTEN),
    "denied, German": (os_error("[WinError 5] Zugriff verweigert: 'c10.dll'"), WRITTEN),
    "read-only": (os_error("[Errno 30] Read-only file system: '/x/.venv'"), "disk that can"),
    "long path": (os_error("[Errno 2] No such file or directory: 'C:\\\\x'", "HINT: This error "
                           "might have occurred since this system does not have Windows Long Path "
                           "support enabled.\n"), "shorter"),
    "managed": ("error: externally-managed-environment\n\n× This environment is externally "
                "managed\n╰─> To install Python packages system-wide, try apt install "
                "python3-xyz.\n\nhint: See PEP 668 for the detailed specification.\n",
                ".venv is no environment"),
    "user": ("ERROR: Can not perform a '--user' install. User site-packages are not visible in "
             "this virtualenv.\n", "PIP_USER"),
    "build": (BUILD, "could not be built"),
    "build needs the network": (
        "  error: subprocess-exited-with-error\n\n  × pip subprocess to install build dependencies "
        "did not run successfully.\n  ╰─> [7 lines of output]\n"
        + "".join(f"      {line}\n" for line in (retries(REFUSED, "setuptools") + NONE.replace(
            "torch==2.13.0", "setuptools>=77")).splitlines())
        + "      [end of output]\nerror: subprocess-exited-with-error\n", NETWORK),
    "memory": (crash("MemoryError"), "Memory ran out"),
    "no file": ("ERROR: Could not open requirements file: [Errno 2] No such file or directory: "
                "'requirements.txt'\n", "git checkout requirements.txt"),
    "no ensurepip": ("The virtual environment was not created successfully because ensurepip is "
                     "not\navailable.  On Debian/Ubuntu systems, you need to install the "
                     "python3-venv\n", "without ensurepip"),
    "no ensurepip, disabled": ("ensurepip is disabled in Debian/Ubuntu for the system python.\n",
                               "without ensurepip"),
    "no venv": ("/usr/bin/python3: No module named venv\n", "without ensurepip"),
    "unknown": ("ERROR: what nobody has seen before\n", "lines above"),
    "silence": ("", "lines above"),
    # Warnings of one cause, then the end of another: the end counts.
    "slow, then full": (retries(SLOW, left=(4, 3)) + FULL, DISK),
    "slow, then other versions": (retries(SLOW, left=(4,)) + OLDER, NO_SUCH),
    "slow, then conflict": (retries(SLOW, left=(4, 3)) + CONFLICT, EXCLUDE),
    "slow, then build": (retries(SLOW, left=(4,)) + BUILD, "could not be built"),
    "slow, then certificate": (retries(SLOW, left=(4, 3)) + retries(CERT, left=(2, 1, 0)) + NONE,
                               CERTIFICATE),
    "certificate, then slow": (retries(CERT, left=(4, 3)) + retries(SLOW, left=(2, 1, 0)) + NONE,
                               NETWORK),
    "slow for another package": (retries(SLOW, "numpy", (4,)) + NONE, NOT_OFFERED),
}


@pytest.mark.parametrize("name", WORDS)
def test_the_advice_is_about_what_went_wrong_last(name):
    said, expected = WORDS[name]
    assert expected in environment.advice(said)


def test_no_two_kinds_of_trouble_share_their_marks():
    marks = {expected for _, expected in WORDS.values()}
    for said, expected in WORDS.values():
        others = [m for m in marks - {expected, CERTIFICATE} if m in environment.advice(said)]
        assert not [m for m in others if m not in expected and expected not in m], expected


@pytest.mark.parametrize("name", ["disk, in ensurepip", "no ensurepip", "no venv"])
def test_a_venv_that_fails_says_why_and_stops(name, monkeypatch, tmp_path, capsys):
    said, expected = WORDS[name]
    monkeypatch.setattr(environment, "ENV", tmp_path / ".venv")
    monkeypatch.setattr(environment, "ENV_PYTHON", tmp_path / "nothing")
    monkeypatch.setattr(environment.subprocess, "run", lambda *a, **k: SimpleNamespace(
        returncode=1, stdout=said))
    with pytest.raises(SystemExit, match=expected):
        environment.make_venv()
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(("code", "expected"), [
    ("import sys; sys.exit('ERROR: [Errno 28] No space left on device')", DISK),
    ("import os, signal; os.kill(os.getpid(), getattr(signal, 'SIGKILL', 9))", "Memory ran out")])
def test_a_pip_that_fails_says_why_and_stops(code, expected, monkeypatch):
    if sys.platform == "win32" and "SIGKILL" in code:
        pytest.skip("Windows has no such signal")
    popen = subprocess.Popen
    monkeypatch.setattr(environment.subprocess, "Popen", lambda _command, **options: popen(
        [sys.executable, "-c", code], **options))
    with pytest.raises(SystemExit, match=expected):
        environment.install()
