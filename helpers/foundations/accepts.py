"""What a public function accepts, said above it: rules that convert an argument or refuse it.

    @accepts(y=rules.labels(), score=rules.reals(1), needs=same_length("y", "score"))
    def roc_curve(y, score): ...

The body then meets arrays of one known type, and a bad argument gets a ValueError or TypeError that
names function, argument, value and what was expected. A class is checked when it is made.
"""

import functools
import inspect
from collections.abc import Callable

import numpy as np


def accepts(needs: Callable | tuple = (), **rules: Callable):
    """Decorator: each named argument that is given goes through its rule, then all through `needs`.

    A rule takes the value and returns it, converted where that loses nothing, or raises ValueError
    or TypeError with what was expected. `needs` (one or several, from `need`, `same_length`,
    `same_shape`) look at all arguments together. Raises TypeError for a rule without a parameter.
    """
    needs = needs if isinstance(needs, tuple) else (needs,)

    def wrap(function):
        made = function.__init__ if inspect.isclass(function) else function
        signature = inspect.signature(made)
        if strangers := rules.keys() - signature.parameters.keys():
            raise TypeError(f"{function.__qualname__} has no {', '.join(sorted(strangers))}")

        @functools.wraps(made)
        def checked(*args, **kwargs):
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                return made(*args, **kwargs)  # Python's own words for a call of the wrong form
            given = bound.arguments
            for name in rules.keys() & given.keys():
                try:
                    given[name] = rules[name](given[name])
                except (TypeError, ValueError) as error:
                    kind = TypeError if isinstance(error, TypeError) else ValueError
                    raise kind(f"{function.__name__}: {name}={shown(given[name])}: "
                               f"{error}") from None
            if needs:
                everything = inspect.BoundArguments(signature, given.copy())
                everything.apply_defaults()
                for check in needs:
                    if said := check(everything.arguments):
                        raise ValueError(f"{function.__name__}: {said}")
            return made(*bound.args, **bound.kwargs)

        if made is function:
            return checked
        function.__init__ = checked
        return function

    return wrap


def shown(value) -> str:
    """A value in at most 60 characters, for a message; a long array by its type and shape."""
    if hasattr(value, "dtype") and hasattr(value, "shape") and np.prod(value.shape) > 8:
        return f"<{type(value).__name__} of {value.dtype}, shape {tuple(value.shape)}>"
    try:
        text = " ".join(repr(value).split())
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "…"


def need(holds: Callable[..., bool], expected: str) -> Callable:
    """A condition on several arguments: `holds` takes them by their names, `expected` says it."""
    names = tuple(inspect.signature(holds).parameters)

    def check(given) -> str:
        values = {name: given[name] for name in names}
        return "" if holds(**values) else (
            f"{', '.join(f'{k}={shown(v)}' for k, v in values.items())}: expected {expected}")

    return check


def same_length(*names: str) -> Callable:
    """A need: these arguments (None aside) have as many entries along their first axis."""
    def check(given) -> str:
        sizes = {name: len(given[name]) for name in names if given[name] is not None}
        return "" if len(set(sizes.values())) < 2 else (
            f"expected equal lengths, got {', '.join(f'{k} {v}' for k, v in sizes.items())}")

    return check


def same_shape(*names: str) -> Callable:
    """A need: these arguments (None aside) have one shape."""
    def check(given) -> str:
        shapes = {name: tuple(np.shape(given[name])) for name in names if given[name] is not None}
        return "" if len(set(shapes.values())) < 2 else (
            f"expected equal shapes, got {', '.join(f'{k} {v}' for k, v in shapes.items())}")

    return check
