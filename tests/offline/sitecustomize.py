"""Cut the network for this Python process: only loopback answers. Every other try is logged.

With this folder on PYTHONPATH, every child interpreter imports this file at start-up: test
workers, notebook kernels, JupyterLab. The root conftest.py sets that up and reads the log, the
file named by OFFLINE_LOG.
"""

import os
import sys

LOOKUPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
SENDINGS = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getnameinfo"}


def is_local(host) -> bool:
    """Whether a host is this machine: nothing, loopback, or the machine's own name."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name in (None, "", "localhost", "::1", "0.0.0.0", "::") or str(name).startswith("127."):
        return True
    import socket
    return name in (socket.gethostname(), socket.gethostname() + ".local")


def guard(event: str, args: tuple) -> None:
    """Audit hook: log and refuse to look up, or send to, any host but this one."""
    if event in LOOKUPS:
        host = args[0]
    elif event in SENDINGS and isinstance(args[-1], tuple):  # a unix socket's address is text
        host = args[-1][0]
    else:
        return
    if is_local(host):
        return
    if log := os.environ.get("OFFLINE_LOG"):
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"process {os.getpid()} ({' '.join(sys.argv[:2])}): {event} {host!r}\n")
    raise OSError(f"the tests run without a network: {event} {host!r}")


sys.addaudithook(guard)

if __name__ == "sitecustomize":  # another sitecustomize on the path still has its turn
    from importlib.machinery import PathFinder
    here = os.path.dirname(os.path.abspath(__file__))
    other = PathFinder.find_spec(
        __name__, [p for p in sys.path if os.path.abspath(p or ".") != here])
    if other and other.origin:
        with open(other.origin, encoding="utf-8") as file:
            exec(file.read(), {"__name__": __name__, "__file__": other.origin})
