"""Where jobs run: processes of this machine, or a Ray cluster, behind one call.

An engine takes jobs from the left of `waiting` (it may grow meanwhile) until none is left, runs
the generator `work(job, *args)` elsewhere, and yields (job, what it yielded) or (job, the exception
that ended it): ConnectionError if its worker died, RuntimeError that quotes it if the exception
itself cannot be sent.
"""

import contextlib
import os
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing import connection, get_context
from multiprocessing.reduction import ForkingPickler

from helpers.foundations import rules
from helpers.foundations.accepts import accepts


def _child(pipe: connection.Connection, work: Callable, *task) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the sweep, which ends its workers
    try:
        for row in work(*task):
            pipe.send_bytes(ForkingPickler.dumps(row))
    except Exception as error:
        pipe.send_bytes(_pickled(error))
    pipe.send_bytes(b"")  # through, not dead


def _pickled(error: Exception) -> bytes:
    """The exception, if it comes back from that, else its words in a RuntimeError."""
    with contextlib.suppress(Exception):
        raw = bytes(ForkingPickler.dumps(error))
        if isinstance(pickle.loads(raw), Exception):
            return raw
    words = "".join(traceback.format_exception_only(error)).strip()
    return pickle.dumps(RuntimeError(words))


def _unpickled(raw: bytes):
    try:
        return pickle.loads(raw)
    except Exception as error:
        return RuntimeError(f"what a worker sent cannot be read here: {error}")


@accepts(waiting=rules.a(deque), work=rules.function, n_workers=rules.integer(1),
         args=rules.anything)
def processes(waiting: deque, work: Callable, n_workers: int, *args) -> Iterator[tuple]:
    """Each job in a process of its own on this machine, `n_workers` at a time."""
    context, running = get_context("spawn"), {}
    try:
        while waiting or running:
            while waiting and len(running) < n_workers:
                job = waiting.popleft()
                receive, send = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(send, work, job, *args))
                process.start()
                send.close()
                running[receive] = job, process
            for pipe in connection.wait(list(running)):
                job, process = running[pipe]
                try:
                    raw = pipe.recv_bytes()
                except (EOFError, OSError):  # the second: in the middle of a message
                    raw = None
                if raw:
                    yield job, _unpickled(raw)
                    continue
                process.join(30)
                process.kill()  # should it linger
                process.join()
                del running[pipe]
                pipe.close()
                if raw is None:
                    yield job, ConnectionError(f"a worker ended with {process.exitcode}")
    finally:
        for _, process in running.values():
            process.kill()
            process.join()


@accepts(waiting=rules.a(deque), work=rules.function, n_workers=rules.integer(1),
         args=rules.anything)
def cluster(waiting: deque, work: Callable, n_workers: int, *args) -> Iterator[tuple]:
    """Each job on one CPU of a Ray cluster, which decides how many run at once."""
    import ray
    if not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), include_dashboard=False,
                 log_to_driver=False)
    remote = ray.remote(num_cpus=1, max_retries=0)(work).options(num_returns="streaming")
    running = {}
    try:
        while waiting or running:
            while waiting:
                job = waiting.popleft()
                running[remote.remote(job, *args)] = job
            rows = ray.wait(list(running), num_returns=1)[0][0]
            try:
                yield running[rows], ray.get(next(rows))
            except StopIteration:
                del running[rows]
            except ray.exceptions.RayTaskError as error:
                cause = error.cause if isinstance(error.cause, Exception) else RuntimeError(error)
                yield running.pop(rows), cause
            except ray.exceptions.RayError as error:
                yield running.pop(rows), ConnectionError(f"a worker was lost: {error}")
    finally:
        for rows in running:
            ray.cancel(rows, force=True)


ENGINES = {"processes": processes, "ray": cluster}
