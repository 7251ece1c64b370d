"""How long a second `make lab` takes until the server answers."""

import statistics
import time

from tests.browser import lab


def start() -> float:
    """Seconds from the command to the first answer."""
    begin = time.perf_counter()
    with lab.make_lab():
        return time.perf_counter() - begin


def rows():
    start()  # the first one
    yield "second start of make lab, median of 3", statistics.median(
        start() for _ in range(3)), "s", "≤ 10"
