"""The public name of the fits: `from helpers.fits import fit_parametric`, `python -m helpers.fits`.

What it offers stands in `helpers.scaling`; this name stays wherever that moves.
"""

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
    main,
    objective,
    parabola,
    parametric_loss,
    percentiles,
    project,
    seed_noise,
)

if __name__ == "__main__":
    import sys

    main(*sys.argv[1:])
