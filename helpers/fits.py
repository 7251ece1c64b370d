"""The public name of the fits: `from helpers.fits import fit_parametric`, `python -m helpers.fits`.

What it offers stands in `helpers.scaling`; this name stays wherever that moves.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from helpers.foundations import rules
from helpers.foundations.accepts import accepts
from helpers.scaling import report
from helpers.scaling.checks import ABOVE_0, DELTA
from helpers.scaling.fits import (  # noqa: F401
    Bootstrap,
    IsoFLOP,
    Kaplan,
    Parametric,
    PowerLaw,
    bootstrap_parametric,
    envelope,
    fit_kaplan,
    fit_parametric,
    fit_power_law,
    fit_power_law_offset,
    huber,
    isoflop,
    kaplan_loss,
    objective,
    parabola,
    parametric_loss,
    percentiles,
    project,
    seed_noise,
)

EPILOG = """The file has one run in each row and a header that names the columns. Without --budget,
the split is given at the largest run's compute and at 10 and 100 times as much. What lies beyond
the runs is marked, in the text and in the figure: there the law is a guess. Exit status: 0, or 2
if the file or the runs are refused."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.fits", epilog=EPILOG, allow_abbrev=False,
        description="Fit L(N, D) = E + A/N^alpha + B/D^beta to runs, with intervals; say how to "
                    "split a budget of training FLOPs; draw the fit.")
    add = parser.add_argument
    add("runs", metavar="RUNS.csv", help="a table of runs, separated by commas, semicolons or tabs")
    add("--n", default="N", metavar="NAME", help="column of parameters N (default N)")
    tokens = parser.add_mutually_exclusive_group()
    tokens.add_argument("--d", metavar="NAME", help="column of tokens D (default D)")
    tokens.add_argument("--flops", metavar="NAME", help="column of training FLOPs C instead of "
                                                        "tokens: D = C/(6N)")
    add("--loss", default="loss", metavar="NAME", help="column of the loss in nats per token "
                                                       "(default loss)")
    add("--groups", metavar="NAME", help="column of labels of runs that share luck, such as the "
                                         "trunk of branches: whole groups are resampled")
    add("--delta", type=_option(float, DELTA), default=1e-3, metavar="X",
        help="where Huber's loss of log L turns linear (default 0.001; inf: least squares)")
    add("--budget", type=_option(float, ABOVE_0), nargs="+", action="extend", metavar="C",
        help="training FLOPs to split")
    add("--resamples", type=_option(int, rules.integer(1, 10**6)), default=4000, metavar="K",
        help="refits for the intervals (default 4000)")
    add("--json", action="store_true", help="print one JSON object and nothing else")
    add("--output", metavar="FIGURE", help="where the figure goes (default: RUNS.png)")
    return parser


def _option(convert, rule):
    def option(text: str):
        try:
            return rule(convert(text))
        except (TypeError, ValueError) as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None

    return option


@accepts()
def main(*arguments: str) -> None:
    """Fit the runs in a CSV file, print the law with 95 % intervals, and draw it.

    `arguments` are those of the command line, `--help` lists them. What is refused ends with one
    line on stderr and SystemExit(2), before anything is printed on stdout.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    path = Path(options.runs)
    output = Path(options.output) if options.output else path.with_suffix(".png")
    try:
        runs = report.read_runs(path, options.n, options.d or "D", options.loss, options.flops,
                                options.groups)
        _writable(output, path)
        columns = runs["N"], runs["D"], runs["loss"]
        law = fit_parametric(*columns, options.delta)
        boot = bootstrap_parametric(*columns, options.resamples, 0, options.delta,
                                    groups=runs["groups"])
        found = report.summary(runs, law, boot, options.delta, options.budget)
        output.write_bytes(report.figure(runs, law, boot, found, output.suffix[1:].lower()))
    except OSError as error:
        parser.exit(2, f"{parser.prog}: {error.filename or output}: {error.strerror}\n")
    except (TypeError, ValueError) as error:
        where = "" if str(path) in str(error) else f"{path}: "
        parser.exit(2, f"{parser.prog}: {where}{error}\n")
    said = report.told(found) + f"figure: {output}\n"
    if options.json:
        whole = {"file": str(path), "figure": str(output), **found}
        said = json.dumps(whole, indent=1, allow_nan=False) + "\n"
    sys.stdout.write(said)


def _writable(output: Path, source: Path) -> None:
    """Refuse a figure that could not be written, or would replace the runs, before the work."""
    from matplotlib.backend_bases import FigureCanvasBase

    if output.resolve() == source.resolve() or (output.exists() and source.exists()
                                                and output.samefile(source)):
        raise ValueError(f"{output}: the figure would overwrite the runs; name another --output")
    kinds = FigureCanvasBase.get_supported_filetypes()
    if output.suffix[1:].lower() not in kinds:
        raise ValueError(f"{output}: expected a figure's name that ends in one of "
                         f"{', '.join(sorted(f'.{kind}' for kind in kinds))}")
    if not output.parent.is_dir():
        raise ValueError(f"{output}: there is no folder {output.parent}")
    if output.is_dir():
        raise ValueError(f"{output} is a folder; name a file with --output")


if __name__ == "__main__":
    os.environ["MPLBACKEND"] = "agg"  # a command opens no window
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal may lack the sign …
    main(*sys.argv[1:])
