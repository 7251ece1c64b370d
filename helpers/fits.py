"""The public name of the fits: `from helpers.fits import fit_parametric`, `python -m helpers.fits`.

What it offers stands in `helpers.scaling`; this name stays wherever that moves.
"""

from helpers.scaling.fits import (
    main,
)

if __name__ == "__main__":
    import sys

    main(*sys.argv[1:])
