"""Rules for `accepts`: each takes a value and returns it converted, or says what was expected."""

import math
import operator
from collections.abc import Callable

import numpy as np

LARGEST = float(np.finfo(float).max)


def anything(value):
    """Rule: no rule here; the function's own first lines check it, or any value will do."""
    return value


def maybe(rule: Callable) -> Callable:
    """Rule: None, or what `rule` takes."""
    return lambda value: None if value is None else rule(value)


def a(*types: type) -> Callable:
    """Rule: an instance of one of these types."""
    said = " or ".join(t.__name__ for t in types)

    def rule(value):
        if not isinstance(value, types):
            raise TypeError(f"expected {said}, got {type(value).__name__}")
        return value

    return rule


def one_of(*values) -> Callable:
    """Rule: one of these values."""
    def rule(value):
        for v in values:
            alike = type(value) is type(v) or (isinstance(v, str) and isinstance(value, str))
            if value is v or (alike and value == v):
                return v
        raise ValueError(f"expected one of {', '.join(map(repr, values))}")

    return rule


def each(rule: Callable, least: int = 0) -> Callable:
    """Rule: a list, tuple or other iterable of what `rule` takes, at least `least` long → list.

    Text is refused: a string would be taken letter by letter.
    """
    def whole(values):
        if isinstance(values, str | bytes):
            raise TypeError(f"expected a list, got {type(values).__name__}")
        try:
            values = list(values)
        except TypeError:
            raise TypeError(f"expected a list, got {type(values).__name__}") from None
        if len(values) < least:
            raise ValueError(f"expected at least {least}, got {len(values)}")
        kept = []
        for i, value in enumerate(values):
            try:
                kept.append(rule(value))
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"{error}, at index {i}") from None
        return kept

    return whole


def text(value):
    """Rule: a string that can be written as UTF-8."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"expected text, got half a surrogate pair at index {error.start}"
                         ) from None
    return value


def function(value):
    """Rule: something that can be called."""
    if not callable(value):
        raise TypeError(f"expected a function, got {type(value).__name__}")
    return value


def _range(low: float, high: float, above: float, below: float) -> str:
    words = [f"{sign} {end:g}" for sign, end in (("≥", low), (">", above), ("≤", high),
                                                 ("<", below)) if math.isfinite(end)]
    return "".join(f" {' and '.join(words)}" if words else "")


def _ends(low: float, high: float, above: float, below: float, finite=True) -> tuple:
    """The least and the largest number that fit."""
    if finite or above > -math.inf:
        low = max(low, math.nextafter(above, math.inf))
    if finite or below < math.inf:
        high = min(high, math.nextafter(below, -math.inf))
    return low, high


def number(low=-math.inf, high=math.inf, *, above=-math.inf, below=math.inf) -> Callable:
    """Rule: one finite real number with low ≤ x ≤ high and above < x < below → int or float."""
    expected = f"expected a finite number{_range(low, high, above, below)}"
    low, high = _ends(low, high, above, below)

    def rule(value):
        if type(value) not in (float, int):
            one = value.item() if getattr(value, "ndim", None) == 0 else value
            if isinstance(one, bool) or not isinstance(one, int | float):
                raise TypeError(f"{expected}, got {type(value).__name__}")
            value = one
        if not low <= value <= high:
            raise ValueError(expected)
        return value

    return rule


def integer(low=-math.inf, high=math.inf) -> Callable:
    """Rule: one whole number with low ≤ x ≤ high, of any integer type → int."""
    expected = f"expected a whole number{_range(low, high, -math.inf, math.inf)}"

    def rule(value):
        try:
            whole = value if type(value) is int else operator.index(value)
            if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
                raise TypeError
        except TypeError:
            raise TypeError(f"{expected}, got {type(value).__name__}") from None
        if not low <= whole <= high:
            raise ValueError(expected)
        return whole

    return rule


def _array(values, kinds: str, expected: str, ndim) -> np.ndarray:
    if type(values) is not np.ndarray:
        values = values.detach().cpu() if hasattr(values, "detach") else values
        if np.ma.is_masked(values):
            raise ValueError(f"{expected}, got masked entries")
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"{expected}, got rows of unequal length") from None
    if array.dtype.kind == "O" and "f" in kinds and all(type(v) in (int, float)
                                                        for v in array.flat):
        try:
            array = array.astype(float)  # whole numbers too long for 64 bits
        except OverflowError:
            raise ValueError(f"{expected}, got one beyond float64") from None
    if array.dtype.kind not in kinds and array.size:
        raise TypeError(f"{expected}, got {array.dtype}")
    if ndim is not None and array.ndim not in np.atleast_1d(ndim):
        raise ValueError(f"{expected}, got shape {array.shape}")
    return array


def _dims(ndim) -> str:
    return "" if ndim is None else f" in {' or '.join(map(str, np.atleast_1d(ndim)))}-d"


def _all(array, good, expected: str):
    if not np.all(good):
        at = tuple(int(i) for i in np.argwhere(~np.asarray(good))[0])
        place = f" at index {at[0] if len(at) == 1 else at}" if at else ""
        raise ValueError(f"{expected}, got {array[at]}{place}")


def reals(ndim=None, low=-math.inf, high=math.inf, *, above=-math.inf, below=math.inf, least=0,
          finite=True, nan=False) -> Callable:
    """Rule: real numbers → float64 array, of `ndim` dimensions, at least `least` of them.

    Lists, tensors and integers of any width are taken; texts and complex numbers are not. An array
    of float64 is taken as it is, without a copy. ±∞ is refused unless `finite` is False, NaN unless
    `nan` is True.
    """
    expected = (f"expected {'finite ' * finite}numbers{_range(low, high, above, below)}"
                f"{_dims(ndim)}")
    dims = ndim if isinstance(ndim, tuple) else (ndim,)
    low, high = _ends(low, high, above, below, finite)
    ranged = low > -LARGEST or high < LARGEST
    every = nan and not finite and not ranged

    def fine(array) -> bool:
        """Whether all are good at a glance; NaN is in the sum of squares, and the extremes."""
        if ranged and array.size:
            return low <= np.minimum.reduce(array, None) and np.maximum.reduce(array, None) <= high
        return every or math.isfinite(np.vdot(array, array))

    def rule(values):
        if type(values) is not np.ndarray or values.dtype.char != "d":
            values = _array(values, "iufb", expected, None).astype(float)
        if ndim is not None and values.ndim not in dims:
            raise ValueError(f"{expected}, got shape {values.shape}")
        if values.size < least:
            raise ValueError(f"{expected}, at least {least}, got {values.size}")
        if not fine(values):
            _all(values, ((values >= low) & (values <= high)) | (nan & np.isnan(values)), expected)
        return values

    return rule


def integers(ndim=None, low=-2**63, high=2**63 - 1, least=0) -> Callable:
    """Rule: whole numbers, low ≤ x ≤ high, of any integer type → int64 array."""
    shown_range = _range(low if low > -2**63 else -math.inf, high if high < 2**63 - 1 else math.inf,
                         -math.inf, math.inf)
    expected = f"expected whole numbers{shown_range}{_dims(ndim)}"

    def rule(values):
        array = _array(values, "iu", expected, ndim)
        if array.size < least:
            raise ValueError(f"{expected}, at least {least}, got {array.size}")
        if array.size and not (low <= array.min() and array.max() <= high):
            _all(array, (array >= low) & (array <= high), expected)
        return array.astype(np.int64, copy=False)

    return rule


def labels(ndim=1, least=0) -> Callable:
    """Rule: classes 0 and 1, as numbers or bool → int64 array."""
    expected = f"expected labels, only 0 and 1{_dims(ndim)}"

    def rule(values):
        array = _array(values, "biuf", expected, ndim)
        if array.size < least:
            raise ValueError(f"{expected}, at least {least}, got {array.size}")
        _all(array, (array == 0) | (array == 1), expected)
        return array.astype(np.int64, copy=False)

    return rule


def tensor(ndim=None, *, floating=True, finite=False) -> Callable:
    """Rule: a torch tensor of `ndim` dimensions, of floating point or else of whole numbers."""
    expected = (f"expected a tensor of {'floating-point' if floating else 'whole'} numbers"
                f"{_dims(ndim)}")

    def rule(value):
        if not hasattr(value, "is_floating_point"):
            raise TypeError(f"{expected}, got {type(value).__name__}")
        if value.is_floating_point() != floating or str(value.dtype)[6:10] in ("bool", "comp"):
            raise TypeError(f"{expected}, got {value.dtype}")
        if ndim is not None and value.ndim not in np.atleast_1d(ndim):
            raise ValueError(f"{expected}, got shape {tuple(value.shape)}")
        if finite and not bool(value.isfinite().all()):
            raise ValueError(f"{expected}, all finite")
        return value

    return rule
