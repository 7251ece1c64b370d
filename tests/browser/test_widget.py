"""Each widget answers: in a real Chromium, an arrow key on its slider changes its picture."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.browser import lab

NO_BROWSER = ("no Chromium found. Get one with: python -m playwright install chromium, "
              "or the distribution's package chromium")
WIDGETS = {  # notebook: labels of the sliders that are moved
    "01_linear_regression.ipynb": ("penalty λ",),
    "02_gradient_descent.ipynb": ("learning rate",),
    "03_classification.ipynb": ("threshold",),
    "04_neural_networks.ipynb": ("units per layer",),
    "05_data_pipeline.ipynb": ("rows per band",),
    "06_transformer.ipynb": ("temperature", "token that looks"),
    "07_training_at_speed.ipynb": ("parameters",),
    "08_scaling_sweeps.ipynb": ("line held fixed",),
    "09_compute_optimal.ipynb": ("C, FLOPs",),
    "10_data_scaling.ipynb": ("log₂ of different tokens",),
    "11_pruning.ipynb": ("density to keep",),
    "12_quantization.ipynb": ("bits of one code",),
    "13_distillation.ipynb": ("text (bytes)",),
}


@pytest.fixture(scope="module")
def chromium():
    if found := lab.browser():
        return found
    if os.environ.get("CI") == "true":
        pytest.fail(NO_BROWSER)
    pytest.skip(NO_BROWSER)


@pytest.fixture(scope="module")
def server(chromium, tmp_path_factory):
    with lab.server(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.mark.parametrize(("notebook", "labels"), WIDGETS.items(), ids=WIDGETS)
def test_an_arrow_key_changes_the_picture(chromium, server, notebook, labels):
    with lab.page(chromium) as page:
        lab.run_notebook(page, *server, notebook)
        for label in labels:
            widget = lab.Widget(page, label)
            widget.canvas.wait_for()
            before, text = widget.picture(), widget.text.inner_text()
            widget.press("ArrowRight")
            expect(widget.text).not_to_have_text(text, timeout=10_000)
            if folder := os.environ.get("SCREENSHOT_DIR"):
                widget.text.scroll_into_view_if_needed()
                page.screenshot(path=Path(folder) / f"{Path(notebook).stem} {label}.png")
            assert widget.picture() != before
            widget.press("ArrowLeft")
            expect(widget.text).to_have_text(text, timeout=10_000)
            assert widget.picture() == before, "the way back does not lead to the same picture"
        assert page.errors == []
        assert {urlsplit(url).hostname for url in page.requests
                if urlsplit(url).scheme not in ("data", "blob")} == {"127.0.0.1"}
        page.evaluate(f"{lab.KERNEL}.shutdown()")  # else the kernels of all chapters pile up
