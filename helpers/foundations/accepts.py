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

_REFUSALS = (TypeError, ValueError, ArithmeticError, AttributeError, LookupError, RuntimeError)


def accepts(needs: Callable | tuple = (), **rules: Callable):
    """Decorator: each named argument that is given goes through its rule, then all through `needs`.

    A rule takes the value and returns it, converted where that loses nothing, or raises ValueError
    or TypeError with what was expected. `needs` (one or several, from `need`, `same_length`,
    `same_shape`) look at all arguments together; a default is taken as it stands. Raises TypeError
    for a rule without a parameter.
    """
    needs = needs if isinstance(needs, tuple) else (needs,)

    def wrap(function):
        made = function.__init__ if inspect.isclass(function) else function
        signature = inspect.signature(made)
        parameters = signature.parameters
        if strangers := rules.keys() - parameters.keys():
            raise TypeError(f"{function.__qualname__} has no {', '.join(sorted(strangers))}")
        ruled = [(name, rules[name]) for name in parameters if name in rules]
        kinds = {name: p.kind for name, p in parameters.items()}
        places = [name for name, kind in kinds.items() if kind == kind.POSITIONAL_OR_KEYWORD]
        simple = all(name in places or k == k.KEYWORD_ONLY for name, k in kinds.items())
        bare = inspect.BoundArguments(signature, {})
        bare.apply_defaults()
        defaults = bare.arguments
        known = frozenset(parameters)
        required = known - defaults.keys()

        def bind(*args, **kwargs) -> dict | None:
            try:
                return signature.bind(*args, **kwargs).arguments
            except TypeError:
                return None

        @functools.wraps(made)
        def checked(*args, **kwargs):
            if simple:  # as bind, in a third of its time
                given = dict(zip(places, args, strict=False)) | kwargs
                if len(given) != len(args) + len(kwargs) or not required <= given.keys() <= known:
                    given = None
            else:
                given = bind(*args, **kwargs)
            if given is None:
                return made(*args, **kwargs)  # Python's own words for a call of the wrong form
            for name, rule in ruled:
                if name in given:
                    try:
                        given[name] = rule(given[name])
                    except _REFUSALS as error:
                        raise _kind(error)(f"{function.__name__}: {name}={shown(given[name])}: "
                                           f"{error}") from None
            if needs:
                everything = defaults | given
                for check in needs:
                    try:
                        said = check(everything)
                    except _REFUSALS as error:
                        raise _kind(error)(f"{function.__name__}: {error}") from None
                    if said:
                        raise ValueError(f"{function.__name__}: {said}")
            if simple:
                return made(**given)
            bound = inspect.BoundArguments(signature, given)
            return made(*bound.args, **bound.kwargs)

        if made is function:
            return checked
        function.__init__ = checked
        return function

    return wrap


def _kind(error: Exception) -> type:
    return TypeError if isinstance(error, TypeError | AttributeError) else ValueError


def shown(value) -> str:
    """A value in at most 60 characters, for a message; a long array by its type and shape."""
    try:
        if hasattr(value, "dtype") and hasattr(value, "shape") and np.prod(value.shape) > 8:
            return f"<{type(value).__name__} of {value.dtype}, shape {tuple(value.shape)}>"
        text = " ".join(repr(value).split())
    except Exception:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "…"


def need(holds: Callable[..., bool], expected: str) -> Callable:
    """A condition on several arguments: `holds` takes them by their names, `expected` says it."""
    names = tuple(inspect.signature(holds).parameters)

    def check(given) -> str:
        if holds(*[given[name] for name in names]):
            return ""
        return f"{', '.join(f'{k}={shown(given[k])}' for k in names)}: expected {expected}"

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
