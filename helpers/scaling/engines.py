"""Where jobs run: processes of this machine, or a Ray cluster, behind one call.

An engine takes jobs from the left of `waiting` (it may grow meanwhile) until none is left, runs
the generator `work(job, *args)` elsewhere, and yields (job, what it yielded) or (job, the exception
that ended it): ConnectionError if its worker died.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing import connection, get_context


def _child(pipe: connection.Connection, work: Callable, *task) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the sweep, which ends its workers
    try:
        for row in work(*task):
            pipe.send(row)
    except Exception as error:
        pipe.send(error)


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
                    yield job, pipe.recv()
                except EOFError:
                    process.join()
                    del running[pipe]
                    if process.exitcode:
                        yield job, ConnectionError(f"a worker ended with {process.exitcode}")
    finally:
        for _, process in running.values():
            process.kill()
            process.join()


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
                yield running.pop(rows), error.cause
            except ray.exceptions.RayError as error:
                yield running.pop(rows), ConnectionError(f"a worker was lost: {error}")
    finally:
        for rows in running:
            ray.cancel(rows, force=True)


ENGINES = {"processes": processes, "ray": cluster}
