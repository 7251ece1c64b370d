"""A researcher's own runs: read from a CSV file, told and drawn, for `python -m helpers.fits`."""

import csv
import io
import re
from pathlib import Path

import numpy as np

from helpers.foundations import rules
from helpers.foundations.accepts import accepts
from helpers.scaling import checks, fits

PARAMETERS = ("E", "A", "B", "alpha", "beta", "exp_N", "exp_D")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$", re.ASCII)
COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?$", re.ASCII)  # a decimal comma, perhaps
UNCLEAR = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}$", re.ASCII)  # or a thousand's
NO_NUMBER = ("", "na", "nan", "n/a", "none", "null", "inf", "-inf")


def _table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]], str]:
    """Header, rows with their line numbers, and the separator of a CSV file."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ValueError(f"{path} is no text in UTF-8: export the table as CSV (UTF-8)")
    first = next((line for line in text.splitlines() if line.strip() and line[0] != "#"), "")
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells) and not cells[0].startswith("#"):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
    if not rows:
        raise ValueError(f"{path} is empty: expected a header and one run in each row")
    header = rows.pop(0)[1]
    if not rows:
        raise ValueError(f"{path} holds a header and no runs")
    for line, cells in rows:
        if len(cells) != len(header):
            raise ValueError(f"{path}, line {line}: {len(cells)} cells for {len(header)} columns; "
                             "decimal commas need another separator, such as ;")
    return header, rows, separator


def _column(table, name: str) -> list[tuple[int, str]]:
    at = table[0].index(name)
    return [(line, cells[at]) for line, cells in table[1]]


def _numbers(path, table, names) -> dict[str, np.ndarray]:
    """Positive finite numbers of the named columns; ValueError that names the line and column."""
    columns = {name: _column(table, name) for name in names}
    commas = [cell for column in columns.values() for _, cell in column if "," in cell]
    point = table[2] != "," and any(COMMA.match(c) and not UNCLEAR.match(c) for c in commas)
    found = {}
    for name, column in columns.items():
        found[name] = np.empty(len(column))
        for i, (line, cell) in enumerate(column):
            number = cell.replace(",", ".") if point and COMMA.match(cell) else cell
            where = f"{path}, line {line}, column {name}"
            if cell.lower() in NO_NUMBER:
                raise ValueError(f"{where}: {cell or 'nothing'} is no number; fill it or remove "
                                 "the row")
            if not NUMBER.match(number):
                raise ValueError(f"{where}: {cell!r} is no number" + "; write it with a decimal "
                                 "point and without thousand separators" * ("," in cell))
            found[name][i] = float(number)
            if not 0 < found[name][i] < np.inf:
                raise ValueError(f"{where}: {cell} is not positive and finite")
    return found


@accepts(path=rules.a(str, Path), N=rules.text, D=rules.text, loss=rules.text,
         flops=rules.maybe(rules.text), groups=rules.maybe(rules.text))
def read_runs(path, N="N", D="D", loss="loss", flops=None, groups=None) -> dict[str, np.ndarray]:
    """Columns N, D, loss, groups (None without a name) and line, each (n,), of a CSV file.

    N, D, loss, flops and groups name the file's columns; with `flops`, D = C/(6N). Separators are
    commas, semicolons or tabs; decimal commas are read where they are clear. Raises OSError, or
    ValueError that names file, line and column of what is no positive number.
    """
    path = Path(path)
    table = _table(path)
    names, header = [N, flops or D, loss], table[0]
    wanted = names if groups is None else [*names, groups]
    if missing := [name for name in wanted if name not in header]:
        raise ValueError(f"{path} has no column {', '.join(missing)}; there are: "
                         f"{', '.join(header)}; name yours with --n, --d, --loss")
    if twice := [name for name in wanted if header.count(name) + names.count(name) > 2]:
        raise ValueError(f"{path}: column {twice[0]} stands there twice, or for two things")
    found = _numbers(path, table, names)
    labels = None if groups is None else _column(table, groups)
    for line, label in labels or ():
        if label.lower() in NO_NUMBER[:-2]:
            raise ValueError(f"{path}, line {line}, column {groups}: expected a label")
    return {"N": found[N], "D": found[flops] / 6 / found[N] if flops else found[D],
            "loss": found[loss], "line": np.array([line for line, _ in table[1]]),
            "groups": None if labels is None else np.array([label for _, label in labels])}


@accepts(runs=rules.a(dict), law=rules.a(fits.Parametric), boot=rules.a(fits.Bootstrap),
         delta=checks.DELTA, budgets=rules.maybe(checks.COLUMN))
def summary(runs, law, boot, delta, budgets=None) -> dict:
    """What the command prints and writes as JSON: the fit's checks, the law, each budget's split.

    Without budgets: the most compute of a run, and 10 and 100 times as much. A loss is that of the
    law's own N* and D*; each value comes with the ends of its 95 % interval.
    """
    N, D, loss, C = runs["N"], runs["D"], runs["loss"], 6 * runs["N"] * runs["D"]
    missed = loss / law.predict(N, D) - 1
    worst = int(np.argmax(np.abs(missed)))
    splits = []
    for budget in (C.max() * np.array([1, 10, 100]) if budgets is None else budgets):
        (N_opt, D_opt), (N_ends, D_ends) = law.allocate(budget), boot.allocate_interval(budget)
        inside = (C.min() <= budget <= C.max() and N.min() <= N_opt <= N.max()
                  and D.min() <= D_opt <= D.max())
        splits.append({
            "C": float(budget), "N": _three(N_opt, N_ends), "D": _three(D_opt, D_ends),
            "tokens_per_parameter": _three(D_opt / N_opt, fits.percentiles(
                boot.tokens_per_parameter(budget))),
            "loss": _three(law.predict(N_opt, D_opt), boot.predict_interval(N_opt, D_opt)),
            "beyond_the_runs": not inside, "times_the_largest_run": float(budget / C.max())})
    return {
        "n_runs": len(N), "n_groups": None if runs["groups"] is None else
        len(np.unique(runs["groups"])),
        "ranges": {name: [float(v.min()), float(v.max())]
                   for name, v in (("N", N), ("D", D), ("C", C), ("loss", loss))},
        "verified": law.verified, "n_agree": law.n_agree, "n_starts": law.n_starts,
        "delta": delta if np.isfinite(delta) else "inf", "objective": law.objective,
        "gradient": law.gradient, "not_fixed": list(law.loose),
        "n_resamples": boot.n_resamples, "n_converged": boot.n_converged,
        "share_without_floor": boot.share_without_floor, "level": 0.95,
        "law": {name: _three(getattr(law, name), boot.interval(name)) for name in PARAMETERS},
        "budgets": splits,
        "residuals": {"rms": float(np.sqrt(np.mean(missed**2))), "worst": float(missed[worst]),
                      "worst_line": int(runs["line"][worst])}}


def _three(value, ends) -> dict[str, float]:
    return {"value": float(value), "low": float(ends[0]), "high": float(ends[1])}


@accepts(found=rules.a(dict))
def told(found) -> str:
    """`summary` in plain text."""
    def three(it, digits=4):
        return f"{it['value']:.{digits}g} ({it['low']:.{digits}g} … {it['high']:.{digits}g})"

    drawn = f" in {found['n_groups']} groups" * (found["n_groups"] is not None)
    lines = [
        f"{found['n_runs']} runs{drawn}; {found['n_converged']} of {found['n_resamples']} "
        f"resamples converged, {100 * found['share_without_floor']:.1f} % of them without a floor",
        f"optimum {'verified' if found['verified'] else 'NOT VERIFIED'}: {found['n_agree']} of "
        f"{found['n_starts']} starts agree; gradient {found['gradient']:.1g} of the largest it "
        f"could be; objective {found['objective']:.6g} (Huber, delta {found['delta']})",
        "L(N, D) = E + A/N^alpha + B/D^beta in nats per token, with 95 % intervals"]
    if found["not_fixed"]:
        lines.append(f"NOT FIXED by these runs: {', '.join(found['not_fixed'])}. Runs nearer the "
                     "floor would tell E; a wider range of N or of D, its exponent")
    lines += [f"{name:>5} = {three(it)}" for name, it in found["law"].items()]
    for one in found["budgets"]:
        lines.append(f"C = {one['C']:.3g} FLOPs: N* = {three(one['N'], 3)}, D* = "
                     f"{three(one['D'], 3)}, tokens per parameter "
                     f"{three(one['tokens_per_parameter'], 3)}, loss {three(one['loss'])}"
                     + f"; BEYOND THE RUNS, {one['times_the_largest_run']:.3g} times the largest"
                     * one["beyond_the_runs"])
    left = found["residuals"]
    lines.append(f"residuals: root mean square {100 * left['rms']:.2g} %, worst "
                 f"{100 * left['worst']:+.2g} % in line {left['worst_line']}")
    return "\n".join(lines) + "\n"


@accepts(runs=rules.a(dict), law=rules.a(fits.Parametric), boot=rules.a(fits.Bootstrap),
         found=rules.a(dict), kind=rules.text)
def figure(runs, law, boot, found, kind="png") -> bytes:
    """Loss, N* and residuals against C, runs coloured by N, in a file format of matplotlib."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import LogNorm

    from helpers import plots

    N, D, loss, C = runs["N"], runs["D"], runs["loss"], 6 * runs["N"] * runs["D"]
    ends = [C.min(), C.max(), *(one["C"] for one in found["budgets"])]
    wide = np.geomspace(min(ends) / 1.5, 1.5 * max(ends), 200)
    N_opt, D_opt = law.allocate(wide)
    inside = ((C.min() <= wide) & (wide <= C.max()) & (N.min() <= N_opt) & (N_opt <= N.max())
              & (D.min() <= D_opt) & (D_opt <= D.max()))
    axes = plots.panels(3, f"L(N, D) of {len(N)} runs", height=4.2)
    shown = {"c": N, "cmap": "viridis", "norm": LogNorm(N.min(), N.max()), "s": 18, "zorder": 3}
    for ax, y in zip(axes, (loss, N, 100 * (loss / law.predict(N, D) - 1)), strict=True):
        dots = ax.scatter(C, y, label="runs" if ax is axes[0] else None, **shown)
    for ax, y, band in ((axes[0], law.predict(N_opt, D_opt), boot.predict_interval(N_opt, D_opt)),
                        (axes[1], N_opt, boot.allocate_interval(wide)[0])):
        names = ("optimum, 95 %", "extrapolated", "beyond the runs")
        names = names if ax is axes[0] else (None, None, None)
        ax.fill_between(wide, *band, color=plots.COLORS[1], alpha=0.35, lw=0, zorder=4)
        for part, style, name in ((inside, "-", names[0]), (~inside, "--", names[1])):
            ax.plot(wide, np.where(part, y, np.nan), style, color=plots.COLORS[1], lw=2, zorder=5,
                    label=name)
        ax.axvspan(wide[0], C.min(), color="0.5", alpha=0.2, lw=0)
        ax.axvspan(C.max(), wide[-1], color="0.5", alpha=0.2, lw=0, label=names[2])
        ax.set_xlim(wide[0], wide[-1])
    axes[1].plot(*zip(*((one["C"], one["N"]["value"]) for one in found["budgets"]), strict=True),
                 "D", ms=6, mec="k", color=plots.COLORS[1], zorder=6, label="budgets")
    axes[2].axhline(0, color="k", lw=1)
    exponent = plots.interval(law.exp_N, *boot.interval("exp_N"))
    names = (("loss / nats per token", "Loss", "x"), ("N / parameters", f"N* ∝ C^{exponent}", "xy"),
             ("loss over the law's / %", f"Residuals, {100 * found['residuals']['rms']:.2g} % "
                                         "root mean square", "x"))
    for ax, (y, title, log) in zip(axes, names, strict=True):
        plots.label(ax, "C = 6ND / FLOPs", y, title, log)
    axes[2].figure.colorbar(dots, ax=axes[2], label="N / parameters")
    page = io.BytesIO()
    axes[0].figure.savefig(page, format=kind, dpi=150)
    plt.close(axes[0].figure)
    return page.getvalue()
