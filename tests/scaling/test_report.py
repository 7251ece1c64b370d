"""`python -m helpers.fits` on good and malformed files of runs."""

import json
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest

from helpers import fits
from helpers.scaling import report

FEW = ("--resamples", "30")


def made(n=40, seed=0):
    """N, D (whole numbers) and loss of made-up runs of Chinchilla's size and law."""
    rng = np.random.default_rng(seed)
    N, D = (np.exp(rng.uniform(*np.log(ends), n)).astype(int)
            for ends in ((4e7, 1.6e10), (1e9, 1e12)))
    loss = 1.69 + 406.4 / N.astype(float) ** 0.34 + 410.7 / D.astype(float) ** 0.28
    return N, D, loss * np.exp(0.003 * rng.normal(size=n))


COLUMNS = [[str(v) for v in column] for column in (*made()[:2], made()[2].round(6))]


def lines(header="N,D,loss", separator=",", columns=COLUMNS):
    return [header, *(separator.join(row) for row in zip(*columns, strict=True))]


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "runs.csv"
    target.write_text("\n".join(lines()) + "\n", encoding="utf-8")
    return target


def refused(capsys, *arguments) -> str:
    """What stands on stderr; nothing on stdout, exit status 2, no traceback."""
    with pytest.raises(SystemExit) as end:
        fits.main(*(str(a) for a in arguments))
    said = capsys.readouterr()
    assert end.value.code == 2
    assert said.out == ""
    assert "Traceback" not in said.err
    return said.err


def test_the_command_prints_the_law_with_intervals_and_draws_a_figure(path):
    command = [sys.executable, "-m", "helpers.fits", str(path), "--budget", "1e21", "1e25"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    columns = [np.array(c, dtype=float) for c in COLUMNS]
    law, boot = fits.fit_parametric(*columns), fits.bootstrap_parametric(*columns)
    low, high = boot.interval("alpha")
    assert f"alpha = {law.alpha:.4g} ({low:.4g} … {high:.4g})" in done.stdout
    assert ("40 runs; 4000 of 4000 resamples converged, 0.0 % of them without a floor"
            in done.stdout)
    assert "optimum verified: 6 of 6 starts agree" in done.stdout
    assert f"C = 1e+21 FLOPs: N* = {law.allocate(1e21)[0]:.3g} (" in done.stdout
    inside, beyond = (line for line in done.stdout.splitlines() if line.startswith("C ="))
    assert "BEYOND" not in inside
    assert "BEYOND THE RUNS" in beyond
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_json_is_one_object_that_holds_the_fit(path, capsys):
    fits.main(str(path), "--json", "--budget", "1e21", *FEW)
    found = json.loads(capsys.readouterr().out)
    columns = [np.array(c, dtype=float) for c in COLUMNS]
    law, boot = fits.fit_parametric(*columns), fits.bootstrap_parametric(*columns, 30)
    assert found["law"]["exp_N"]["value"] == pytest.approx(law.exp_N, rel=1e-9)
    assert found["objective"] == pytest.approx(law.objective, rel=1e-9)
    assert (found["verified"], found["not_fixed"]) == (True, [])
    (budget,) = found["budgets"]
    N, D = law.allocate(1e21)
    assert budget["N"]["value"] == pytest.approx(N)
    assert budget["tokens_per_parameter"]["value"] == pytest.approx(D / N)
    assert budget["loss"]["value"] == pytest.approx(law.predict(N, D))
    assert (budget["loss"]["low"], budget["loss"]["high"]) == pytest.approx(
        boot.predict_interval(N, D))
    assert (budget["D"]["low"], budget["D"]["high"]) == pytest.approx(
        boot.allocate_interval(1e21)[1])


def test_every_run_of_whole_numbers_is_drawn(path):
    runs = report.read_runs(path)
    assert (6 * runs["N"] * runs["D"]).max() > 2**63  # more than a whole number of 64 bits holds
    law = fits.fit_parametric(runs["N"], runs["D"], runs["loss"])
    boot = fits.bootstrap_parametric(runs["N"], runs["D"], runs["loss"], 30)
    found = report.summary(runs, law, boot, 1e-3)
    drawn, close = [], plt.close
    plt.close = drawn.append
    try:
        report.figure(runs, law, boot, found)
    finally:
        plt.close = close
    (figure,) = drawn
    for ax in figure.axes[:3]:
        C, y = np.array(ax.collections[0].get_offsets()).T
        assert len(C) == 40
        assert C == pytest.approx(6 * runs["N"] * runs["D"])
        assert (np.min(ax.get_xlim()) <= C).all()
        assert np.isfinite(y).all()
    assert "beyond the runs" in figure.axes[0].get_legend_handles_labels()[1]
    assert f"{law.exp_N:.3f}" in figure.axes[1].get_title()
    close(figure)


SEMICOLONS = [COLUMNS[0], COLUMNS[1], [v.replace(".", ",") for v in COLUMNS[2]]]


@pytest.mark.parametrize("text", [
    "﻿" + "\n".join(lines()),
    "\r\n".join(lines()),
    "\r".join(lines()),
    "\n".join(lines(" N , D ,loss ")),
    "\n".join(["# made up", "", *lines(), "", ",,"]),
    "\n".join(lines("N;D;loss", ";")),
    "\n".join(lines("N;D;loss", ";", SEMICOLONS)),
    "\n".join(lines("N\tD\tloss", "\t", SEMICOLONS)),
    "\n".join(lines('"N","D","loss"', ",", [[f'"{v}"' for v in c] for c in COLUMNS])),
    "\n".join(lines("loss,x,D,N", ",", [COLUMNS[2], COLUMNS[2], *COLUMNS[1::-1]])),
], ids=["BOM", "CRLF", "CR", "spaces", "comment", "semicolons", "decimal commas", "tabs", "quotes",
        "order"])
def test_a_file_of_another_make_is_read_as_the_same_runs(tmp_path, text):
    target = tmp_path / "runs.csv"
    target.write_bytes(text.encode())
    runs = report.read_runs(target)
    for name, column in zip(("N", "D", "loss"), COLUMNS, strict=True):
        assert runs[name].tolist() == [float(v) for v in column]


def test_columns_have_any_names_and_flops_serve_for_tokens(tmp_path, capsys):
    N, D, _ = made()
    rows = [COLUMNS[0], [str(6.0 * n * float(d)) for n, d in zip(N, D, strict=True)], COLUMNS[2],
            [f"trunk {i // 4}" for i in range(40)]]
    target = tmp_path / "sweep.csv"
    target.write_text("\n".join(lines("params,FLOPs,val loss,trunk", ",", rows)))
    runs = report.read_runs(target, "params", loss="val loss", flops="FLOPs", groups="trunk")
    assert runs["D"] == pytest.approx(D)
    assert len(np.unique(runs["groups"])) == 10
    fits.main(str(target), "--n", "params", "--flops", "FLOPs", "--loss", "val loss", "--groups",
              "trunk", "--delta", "inf", "--output", str(tmp_path / "a.svg"), *FEW)
    assert "40 runs in 10 groups; 30 of 30 resamples" in capsys.readouterr().out
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()


def changed(row, column, text):
    """The good file with one cell changed; its first run is line 2."""
    rows = [list(c) for c in COLUMNS]
    rows[column][row] = text
    return "\n".join(lines(columns=rows))


@pytest.mark.parametrize(("text", "message"), [
    ("", "is empty"),
    ("\n\n", "is empty"),
    ("N,D,loss\n", "holds a header and no runs"),
    ("N,tokens\n1,2\n", "has no column D, loss; there are: N, tokens"),
    ("\n".join(lines("N,D,Loss")), "has no column loss; there are: N, D, Loss"),
    ("\n".join(lines("N,N,loss")), "has no column D"),
    ("\n".join(lines("N,D,loss,N", ",", [*COLUMNS, COLUMNS[0]])), "column N stands there twice"),
    (changed(3, 2, ""), "line 5, column loss: nothing is no number; fill it or remove the row"),
    (changed(3, 2, "NaN"), "line 5, column loss: NaN is no number"),
    (changed(0, 0, "1.3B"), "line 2, column N: '1.3B' is no number"),
    (changed(1, 2, "-2.5"), "line 3, column loss: -2.5 is not positive"),
    (changed(1, 2, "1e999"), "line 3, column loss: 1e999 is not positive and finite"),
    (changed(1, 1, "0"), "line 3, column D: 0 is not positive"),
    (changed(1, 1, "1_000_000"), "line 3, column D: '1_000_000' is no number"),
    (changed(1, 1, "1 000 000"), "line 3, column D: '1 000 000' is no number"),
    (changed(1, 1, '"10,000,000,000"'), "line 3, column D: .* without thousand separators"),
    (changed(4, 2, "2,5"), "line 6: 4 cells for 3 columns"),
    (changed(4, 2, '"2.5'), "line .*: unexpected end of data"),
    ("\n".join(lines("N;D;loss", ";", [["40,000"] * 40, *COLUMNS[1:]])),
     "line 2, column N: '40,000' is no number; write it with a decimal point"),
    ("\n".join(lines()[:5]), "4 points are too few"),
    ("\n".join(lines(columns=[["1000"] * 40, *COLUMNS[1:]])), "runs.csv: 1 different values of N"),
])
def test_a_malformed_file_is_refused_by_line_and_column(path, capsys, text, message):
    path.write_text(text, encoding="utf-8")
    said = refused(capsys, path)
    assert str(path) in said
    with pytest.raises(ValueError, match=message):
        raise ValueError(said)
    assert not path.with_suffix(".png").exists()


def test_what_is_no_file_of_text_is_refused(path, capsys):
    assert "No such file" in refused(capsys, path.parent / "none.csv")
    assert "none.csv" in refused(capsys, path.parent / "none.csv")
    assert str(path.parent) in refused(capsys, path.parent)
    path.write_bytes(b"PK\x03\x04\x00\x00\xff\xfe")
    assert "is no text in UTF-8: export the table as CSV" in refused(capsys, path)
    path.write_bytes("N,D,loss,Größe\n".encode("latin-1"))
    assert "is no text in UTF-8" in refused(capsys, path)


def test_a_figure_never_replaces_the_runs_or_goes_nowhere(path, capsys):
    before = path.read_bytes()
    assert "would overwrite the runs" in refused(capsys, path, "--output", path)
    picture = path.rename(path.with_suffix(".png"))
    assert "would overwrite the runs" in refused(capsys, picture)
    assert picture.read_bytes() == before
    picture.rename(path)
    for output, message in ((path.parent / "no" / "a.png", "there is no folder"),
                            (path.parent / "a.xyz", "expected a figure's name that ends in one of"),
                            (path.parent / "a", "expected a figure's name")):
        assert message in refused(capsys, path, "--output", output)
    (path.parent / "folder.png").mkdir()
    assert "is a folder" in refused(capsys, path, "--output", path.parent / "folder.png")


def test_a_folder_that_cannot_be_written_says_so(path, capsys, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    assert "runs.png: No space left on device" in refused(capsys, path, *FEW)


@pytest.mark.parametrize(("arguments", "message"), [
    ((), "required: RUNS.csv"),
    (("--delta", "0"), "argument --delta: '0': expected"),
    (("--delta", "nan"), "argument --delta"),
    (("--delta", "x"), "argument --delta: 'x'"),
    (("--budget", "0"), "argument --budget: '0'"),
    (("--budget", "1e21", "nan"), "argument --budget: 'nan'"),
    (("--budget",), "argument --budget: expected at least one"),
    (("--resamples", "0"), "argument --resamples: '0'"),
    (("--d", "D", "--flops", "C"), "not allowed with argument"),
    (("--seed", "3"), "unrecognized arguments"),
])
def test_an_option_that_means_nothing_is_refused(path, capsys, arguments, message):
    assert message in refused(capsys, *([path] if arguments else []), *arguments)


def test_help_lists_every_option(capsys):
    with pytest.raises(SystemExit) as end:
        fits.main("--help")
    said = capsys.readouterr().out
    assert end.value.code == 0
    for option in ("--n", "--d", "--flops", "--loss", "--groups", "--delta", "--budget",
                   "--resamples", "--json", "--output"):
        assert option in said


def test_a_law_without_a_floor_says_that_E_is_not_fixed(path, capsys):
    N, D, _ = made()
    rng = np.random.default_rng(0)
    loss = (406.4 / N.astype(float) ** 0.34 + 410.7 / D.astype(float) ** 0.28 - 0.05)
    loss = loss * np.exp(0.003 * rng.normal(size=40))
    rows = [*COLUMNS[:2], [str(v) for v in loss]]
    path.write_text("\n".join(lines(columns=rows)))
    fits.main(str(path), *FEW)
    said = capsys.readouterr().out
    assert "NOT FIXED by these runs: E" in said
    assert "    E = 0 (0 … 0)" in said
    assert "optimum verified" in said
