"""How long a widget takes from the key press on its slider to the finished drawing."""

import statistics
import tempfile
from pathlib import Path

from tests.browser import lab
from tests.browser.test_widget import NO_BROWSER, WIDGETS

PRESSES = 40
# Notes the time of each key press and of the last stroke on any canvas, by the page's clock.
STOPWATCH = """() => {
  window.addEventListener("keydown", (event) => { window.pressed = event.timeStamp; }, true);
  const proto = CanvasRenderingContext2D.prototype;
  for (const name of ["fillRect", "fillText", "strokeRect", "stroke", "fill"]) {
    const original = proto[name];
    proto[name] = function (...args) {
      const result = original.apply(this, args);
      window.drawn = performance.now();
      return result;
    };
  }
}"""


def latencies(notebook: str, labels: tuple[str, ...], executable: str) -> dict[str, list[float]]:
    """For each slider the milliseconds from each press to the last stroke that follows it."""
    found = {label: [] for label in labels}
    with (tempfile.TemporaryDirectory() as folder, lab.server(Path(folder)) as server,
          lab.page(executable) as page):
        lab.run_notebook(page, *server, notebook)
        page.evaluate(STOPWATCH)
        for label in labels:
            widget = lab.Widget(page, label)
            widget.canvas.wait_for()
            for i in range(PRESSES):
                widget.press("ArrowRight" if i // 3 % 2 == 0 else "ArrowLeft")  # not to an end
                page.wait_for_function("window.drawn > window.pressed", timeout=10_000)
                page.wait_for_timeout(250)  # nothing more is drawn for this press
                found[label].append(page.evaluate("window.drawn - window.pressed"))
    return found


def rows():
    if (executable := lab.browser()) is None:
        raise SystemExit(NO_BROWSER)
    for notebook, labels in WIDGETS.items():
        for label, found in latencies(notebook, labels, executable).items():
            what = f"{notebook[:2]}, {label}: key to picture"
            yield f"{what}, median", statistics.median(found), "ms", "≤ 100"
            yield f"{what}, p95", statistics.quantiles(found, n=20)[-1], "ms", "≤ 100"
