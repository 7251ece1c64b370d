"""Rules for `accepts`: each takes a value and returns it converted, or says what was expected."""

import math
import operator
from collections.abc import Callable

import numpy as np


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
        if not any(value is v or (type(value) is type(v) and value == v) for v in values):
            raise ValueError(f"expected one of {', '.join(map(repr, values))}")
        return value

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


def number(low=-math.inf, high=math.inf, *, above=-math.inf, below=math.inf) -> Callable:
    """Rule: one finite real number with low ≤ x ≤ high and above < x < below → int or float."""
    expected = f"expected a finite number{_range(low, high, above, below)}"

    def rule(value):
        if np.ndim(value) or np.asarray(value).dtype.kind not in "iuf":
            raise TypeError(f"{expected}, got {type(value).__name__}")
        value = value.item() if hasattr(value, "item") else value
        if not (math.isfinite(value) and low <= value <= high and above < value < below):
            raise ValueError(expected)
        return value

    return rule


def integer(low=-math.inf, high=math.inf) -> Callable:
    """Rule: one whole number with low ≤ x ≤ high, of any integer type → int."""
    expected = f"expected a whole number{_range(low, high, -math.inf, math.inf)}"

    def rule(value):
        try:
            if isinstance(value, bool | np.bool_):
                raise TypeError
            whole = operator.index(value)
        except TypeError:
            raise TypeError(f"{expected}, got {type(value).__name__}") from None
        if not low <= whole <= high:
            raise ValueError(expected)
        return whole

    return rule


def _array(values, kinds: str, expected: str, ndim) -> np.ndarray:
    values = values.detach().cpu() if hasattr(values, "detach") else values
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"{expected}, got rows of unequal length") from None
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
          finite=True) -> Callable:
    """Rule: real numbers → float64 array, of `ndim` dimensions, at least `least` of them.

    Lists, tensors and integers of any width are taken; texts and complex numbers are not. NaN is
    refused always, ±∞ unless `finite` is False.
    """
    expected = (f"expected {'finite ' * finite}numbers{_range(low, high, above, below)}"
                f"{_dims(ndim)}")

    def rule(values):
        array = _array(values, "iufb", expected, ndim).astype(float)
        if array.size < least:
            raise ValueError(f"{expected}, at least {least}, got {array.size}")
        good = (array >= low) & (array <= high)  # False for NaN
        good &= ((array > above) & (array < below) & np.isfinite(array)) if finite else True
        _all(array, good, expected)
        return array

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
        _all(array, (array >= low) & (array <= high), expected)
        return array.astype(np.int64)

    return rule


def labels(ndim=1, least=0) -> Callable:
    """Rule: classes 0 and 1, as numbers or bool → int64 array."""
    expected = f"expected labels 0 and 1{_dims(ndim)}"

    def rule(values):
        array = _array(values, "biuf", expected, ndim)
        if array.size < least:
            raise ValueError(f"{expected}, at least {least}, got {array.size}")
        _all(array, (array == 0) | (array == 1), expected)
        return array.astype(np.int64)

    return rule


def tensor(ndim=None, *, floating=True, finite=False) -> Callable:
    """Rule: a torch tensor of `ndim` dimensions, of floating point or else of whole numbers."""
    expected = (f"expected a tensor of {'floating-point' if floating else 'whole'} numbers"
                f"{_dims(ndim)}")

    def rule(value):
        if not hasattr(value, "is_floating_point"):
            raise TypeError(f"{expected}, got {type(value).__name__}")
        if value.is_floating_point() != floating or value.dtype.is_complex:
            raise TypeError(f"{expected}, got {value.dtype}")
        if ndim is not None and value.ndim not in np.atleast_1d(ndim):
            raise ValueError(f"{expected}, got shape {tuple(value.shape)}")
        if finite and not bool(value.isfinite().all()):
            raise ValueError(f"{expected}, all finite")
        return value

    return rule
