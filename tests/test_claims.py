"""Verdicts: checked when given, stored for machines, gathered from notebooks."""

import json

import numpy as np
import pytest
import torch

from helpers import claims, data


@pytest.fixture
def shown(monkeypatch):
    """What verdict() displays: a list of mime bundles."""
    bundles = []

    def display(bundle, raw):
        assert raw
        bundles.append(bundle)

    monkeypatch.setattr(claims, "display", display)
    return bundles


@pytest.mark.parametrize(("holds", "word"), [
    (True, "confirmed"), (np.bool_(True), "confirmed"), (False, "refuted"),
    (np.float64(1) > 2, "refuted"), (None, "it depends")])
def test_a_verdict_stores_its_row_for_machines(shown, holds, word):
    claims.verdict("K3", holds, "off by a factor 2", ratio=np.float64(2.00000049), n=np.int64(10))
    bundle, = shown
    assert json.loads(json.dumps(bundle))[claims.VERDICT] == {
        "claim": "K3", "verdict": word, "measured": "off by a factor 2",
        "figures": {"ratio": 2.0, "n": 10.0}}


def test_a_verdict_shows_the_article_s_words_and_the_measurement(shown):
    claims.verdict("K3", False, "off by a factor 2")
    bundle, = shown
    says = data.table("claims.csv").set_index("claim").says["K3"]
    assert bundle["text/plain"] == "K3 refuted: off by a factor 2"
    assert bundle["text/markdown"] == (f"> **K3 · refuted**\n>\n> *The article:* {says}\n>\n"
                                       "> *Measured:* off by a factor 2")
    assert bundle[claims.VERDICT]["figures"] == {}


def test_figures_keep_six_digits(shown):
    claims.verdict("K1", True, "close", small=1.23456789e-9, large=123456789, negative=-0.1 - 0.2)
    assert shown[0][claims.VERDICT]["figures"] == {"small": 1.23457e-9, "large": 123457000.0,
                                                   "negative": -0.3}


@pytest.mark.parametrize("claim", ["K0", "k3", "", "K 3", None])
def test_an_unknown_claim_is_refused(shown, claim):
    with pytest.raises(ValueError, match=rf"no claim {claim!r} in data/claims\.csv"):
        claims.verdict(claim, True, "anything")
    assert not shown


@pytest.mark.parametrize("holds", [1, 0, "yes", "confirmed", np.array([True]), 0.5])
def test_a_verdict_that_is_no_comparison_s_result_is_refused(shown, holds):
    with pytest.raises(TypeError, match="expected a comparison's result, or None"):
        claims.verdict("K3", holds, "anything")
    assert not shown


@pytest.mark.parametrize("claim", [[], {}, 3, float("nan"), b"K3"])
def test_a_claim_that_is_no_text_is_refused_too(shown, claim):
    with pytest.raises(ValueError, match=r"no claim .* in data/claims\.csv"):
        claims.verdict(claim, True, "anything")


@pytest.mark.parametrize("value", [float("nan"), np.inf, -np.inf, "1", None, 1j, [1.0, 2.0]])
def test_a_figure_that_cannot_be_stored_is_refused_by_name(shown, value):
    with pytest.raises((ValueError, TypeError), match=r"verdict: figures=.*ratio: expected a fini"):
        claims.verdict("K3", True, "anything", n=1, ratio=value)
    assert not shown


def test_figures_of_any_number_type_are_plain_numbers(shown):
    claims.verdict("K3", True, "close", a=np.bool_(True), b=torch.tensor(0.5), c=np.float32(0.25),
                   d=np.array(2))
    assert shown[0][claims.VERDICT]["figures"] == {"a": 1.0, "b": 0.5, "c": 0.25, "d": 2.0}


@pytest.mark.parametrize("measured", [None, 3, "\ud800"])
def test_what_was_measured_is_said_in_text(shown, measured):
    with pytest.raises((ValueError, TypeError), match=r"measured=.*expected text"):
        claims.verdict("K3", True, measured)


def test_each_claim_has_one_number_and_says_something():
    table = data.table("claims.csv")
    assert table.claim.is_unique
    assert table.claim.str.fullmatch(r"K\d+").all()
    assert table.says.str.len().gt(20).all()


def notebook(*outputs_of_cells) -> str:
    cells = [{"cell_type": "markdown", "source": "words"}]
    cells += [{"cell_type": "code", "outputs": outputs} for outputs in outputs_of_cells]
    return json.dumps({"cells": cells}, ensure_ascii=False)


def test_verdicts_are_gathered_from_stored_notebooks_in_order(tmp_path, monkeypatch, shown):
    for claim, holds in (("K1", True), ("K2", False), ("K3", None)):
        claims.verdict(claim, holds, f"misst α für {claim}", value=1)
    first, second, third = ({"output_type": "display_data", "data": bundle} for bundle in shown)
    stream = {"output_type": "stream", "name": "stdout", "text": "1\n"}
    picture = {"output_type": "display_data", "data": {"image/png": "…"}}
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name, text in {"02_b.ipynb": notebook([third]),
                       "01_a.ipynb": notebook([stream, first], [], [picture, second]),
                       "03_c.ipynb": notebook([stream]),
                       "01_a.py": "# not a notebook"}.items():
        (folder / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    rows = claims.verdicts()
    assert [(r["notebook"], r["claim"], r["verdict"]) for r in rows] == [
        ("01_a", "K1", "confirmed"), ("01_a", "K2", "refuted"), ("02_b", "K3", "it depends")]
    assert rows[0] == {**shown[0][claims.VERDICT], "notebook": "01_a"}


def test_no_notebooks_hold_no_verdicts(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    assert claims.verdicts() == []


@pytest.mark.parametrize("text", [
    "", "{half", "[]", "null", "{}", '{"cells": 3}', '{"cells": [3]}', "[" * 100_000, "\udcff",
    '{"cells": [{"outputs": [{"data": {"VERDICT": 3}}]}]}', '{"cells": [{"outputs": [3]}]}'])
def test_a_damaged_notebook_is_named_with_the_cure(tmp_path, monkeypatch, text):
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_a.ipynb").write_text(notebook([]), encoding="utf-8")
    (tmp_path / "notebooks" / "02_b.ipynb").write_bytes(
        text.replace("VERDICT", claims.VERDICT).encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"02_b\.ipynb is no notebook .*`make sync`"):
        claims.verdicts()


SIDES = {  # (chapter, claim): verdict, and what must be so of the stored figures for it
    ("01", "K1"): ("refuted", lambda f: abs(f["theta0"]) < 1 and abs(f["theta1"] - 2) < 0.01
                   and f["rmse_article"] > 1e5),
    ("01", "K2"): ("refuted", lambda f: f["at_100"] > 2 * 1700 and f["at_1000"] > 2 * 16500),
    ("01", "K4"): ("it depends", lambda f: f["gain_small"] > 0 > f["gain_large"]),
    ("02", "K1"): ("refuted", lambda f: f["bound"] < 0.1 / 1000 and f["loss_overflow_step"] < 100
                   and abs(f["theta_1"] - 2) < 0.01),
    ("02", "K3"): ("refuted", lambda f: abs(f["factor"] - 2) < 1e-4),
    ("03", "K6"): ("refuted", lambda f: f["lowest_p"] > 0.9
                   and f["accuracy_half"] < 0.5 < 0.95 < f["accuracy_whole"]),
    ("03", "K7"): ("refuted", lambda f: abs(f["new"] - 0.5) < 0.01 and f["new"] < f["fitted"]
                   and f["fitted_highest"] < 0.65 and f["log10_luck"] < -50),
    ("03", "K8"): ("refuted", lambda f: f["comparisons"] == 1e6
                   and f["perfect"] < f["constant"] < 0.7),
    ("03", "K11"): ("refuted", lambda f: f["fit_equal"] <= f["constant_equal"] < 0.05),
    ("04", "K5"): ("it depends", lambda f: f["sigmoid"] < 0.3 < f["relu_gain_1"] < 0.9
                   < f["relu_he"] < 1.1 < f["relu_gain_2"] and f["sigmoid_repaired"] > 0.95),
    ("04", "K15"): ("it depends", lambda f: f["change_few"] > 10 and f["change_many"] < 0
                    and f["change_width"] < -10 and f["change_ridge_few"] < 0),
    ("05", "K10"): ("it depends", lambda f: abs(f["minmax"]) < 1 and abs(f["minmax_heavy"]) < 2
                    and f["selection"] > 10 and f["duplicates"] > 10),
    ("06", "K9"): ("refuted", lambda f: f["likeliest"] - f["likeliest_in_article"] > 0.1),
    ("07", "K5"): ("it depends", lambda f: f["sigmoid"] < 1e-15
                   and f["relu_gain_1"] < 1e-3 < f["relu_he"] < 0.1 and f["relu_gain_2"] > 10
                   and f["sigmoid_repaired"] > 0.5 and f["ours"] > 0.5),
    ("07", "K12"): ("it depends", lambda f: f["below_one"] == f["rises"] == 1
                    and abs(f["more"] - 1) < 1e-3 and 0.8 < f["exact_flops"] < 0.95),
    ("07", "K13"): ("it depends", lambda f: abs(f["state"] - 1) < 0.01 and f["whole"] < 0.7),
    ("08", "K14"): ("confirmed", lambda f: f["gain_small"] - f["gain_large"] > f["error"] > 0
                    and f["gain_large"] > 0 == f["losing"]),
    ("10", "K15"): ("it depends", lambda f: f["change_fresh"] < -0.2 and f["change_32kB"] < -0.1
                    and f["change_8kB"] > 0.5),
    ("10", "K16"): ("it depends", lambda f: f["noise_30"] > f["halved_tokens"] > 0.1
                    > f["repeats_16"] > -0.1),
    ("13", "K16"): ("it depends", lambda f: f["fp32_gain"] > 0.05 and f["prune_gain"] < 0
                    and f["steps_gain"] > 0.1 and f["flops_gain"] < -0.1),
}


def test_each_stored_verdict_stands_on_the_side_where_its_figures_are():
    stored = {(row["notebook"][:2], row["claim"]): row for row in claims.verdicts()}
    assert stored.keys() == SIDES.keys()
    for key, (word, holds) in SIDES.items():
        assert stored[key]["verdict"] == word, key
        assert holds(stored[key]["figures"]), (key, stored[key]["figures"])
