"""`accepts` and its rules: what is converted, what is refused and in which words."""

import contextlib
import copy
import dataclasses
import inspect
import math
import pickle
import pydoc
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need, same_length, same_shape, shown
from helpers.foundations.regression import mse

once = settings(max_examples=40, deadline=None, derandomize=True)


@accepts(x=rules.reals(1), n=rules.integer(1), needs=need(lambda x, n: n <= len(x), "n at most x"))
def first(x, n=2, *, scale=1.0):
    """The first n of x, scaled."""
    return x[:n] * scale


@accepts(size=rules.integer(1), rate=rules.number(above=0))
@dataclasses.dataclass(frozen=True)
class Config:
    """Two settings."""

    size: int
    rate: float = 0.1


@accepts(parts=rules.each(rules.number()), facts=rules.anything, n=rules.integer(0))
def open_ended(n, *parts, last=0, **facts):
    """Any number of parts and facts."""
    return n, parts, last, facts


def test_arguments_are_converted_by_place_and_by_name_and_defaults_stand():
    for called in (first([1, 2, 3]), first(x=(1, 2, 3), n=np.int8(2)), first([1, 2, 3], 2)):
        assert called.dtype == float
        assert called.tolist() == [1, 2]
    assert first([1, 2], scale=3).tolist() == [3, 6]
    assert open_ended(np.int64(1), 2, np.float32(0.5), a="b") == (1, (2, 0.5), 0, {"a": "b"})


@pytest.mark.parametrize(("call", "kind", "message"), [
    (lambda: first([1, np.nan]), ValueError,
     r"first: x=\[1, nan\]: expected finite numbers in 1-d, got nan at index 1"),
    (lambda: first([[1]]), ValueError, r"first: x=\[\[1\]\]: .* got shape \(1, 1\)"),
    (lambda: first(["a"]), TypeError, "first: x=.*expected finite numbers in 1-d, got <U1"),
    (lambda: first([1, 2], n=2.5), TypeError, "first: n=2.5: expected a whole number ≥ 1, got fl"),
    (lambda: first([1, 2], n=True), TypeError, "first: n=True: expected a whole number ≥ 1, got b"),
    (lambda: first([1, 2], n=0), ValueError, "first: n=0: expected a whole number ≥ 1"),
    (lambda: first([1], n=2), ValueError, r"first: x=array\(\[1.\]\), n=2: expected n at most x"),
    (lambda: first([1]), ValueError, r"n=2: expected n at most x"),
    (lambda: Config(0), ValueError, "Config: size=0: expected a whole number ≥ 1"),
    (lambda: Config(1, rate=0), ValueError, "Config: rate=0: expected a finite number > 0"),
    (lambda: dataclasses.replace(Config(1), size=-1), ValueError, "Config: size=-1"),
    (lambda: open_ended(1, 2, "x"), TypeError, "open_ended: parts=.*got str, at index 1"),
])
def test_a_refusal_names_function_argument_value_and_expectation(call, kind, message):
    with pytest.raises(kind, match=message) as caught:
        call()
    assert caught.type is kind


def test_the_first_bad_argument_in_the_signature_is_the_one_named():
    with pytest.raises(ValueError, match="first: x="):
        first(n=0, x=[np.inf])


@pytest.mark.parametrize("call", [
    lambda f: f(), lambda f: f(1, 2, 3), lambda f: f([1], x=[1]), lambda f: f([1], m=1),
    lambda f: f(n=1)])
def test_a_call_of_the_wrong_form_gets_pythons_own_words(call):
    with pytest.raises(TypeError) as ours:
        call(first)
    with pytest.raises(TypeError) as plain:
        call(inspect.unwrap(first))
    assert str(ours.value) == str(plain.value)


def test_a_rule_without_a_parameter_is_refused_at_once():
    with pytest.raises(TypeError, match="has no y, z"):
        accepts(z=rules.anything, y=rules.anything)(lambda x: x)


class Odd(ValueError):
    """An error of a function's own."""


def test_an_error_of_the_function_itself_is_passed_on_untouched():
    error = Odd("as it is")

    @accepts(x=rules.anything)
    def fails(x):
        raise error

    with pytest.raises(Odd) as caught:
        fails(1)
    assert caught.value is error


@pytest.mark.parametrize(("raised", "kind"), [
    (Odd("?"), ValueError), (KeyError("?"), ValueError), (OverflowError("?"), ValueError),
    (RuntimeError("?"), ValueError), (AttributeError("?"), TypeError), (TypeError("?"), TypeError)])
def test_whatever_a_rule_or_a_need_stumbles_over_is_said_with_the_functions_name(raised, kind):
    def stumbles(value):
        raise raised

    for refuse in (accepts(x=stumbles), accepts(x=rules.anything, needs=need(
            lambda x: stumbles(x), "never"))):
        with pytest.raises(kind, match=r"takes: .*\?"):
            refuse(takes)(1)


def takes(x):
    return x


def test_signature_and_help_show_the_function_itself():
    assert str(inspect.signature(first)) == "(x, n=2, *, scale=1.0)"
    assert str(inspect.signature(Config)) == "(size: int, rate: float = 0.1) -> None"
    said = pydoc.plain(pydoc.render_doc(first))
    assert "first(x, n=2, *, scale=1.0)" in said
    assert "The first n of x, scaled." in said


def test_checked_functions_and_classes_are_copied_pickled_and_replaced():
    assert pickle.loads(pickle.dumps(first)) is first
    config = Config(np.int64(3), rate=np.float32(0.5))
    assert type(config.size) is int
    for again in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config),
                  dataclasses.replace(config)):
        assert again == config
        assert isinstance(again, Config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.size = 4


def test_a_class_keeps_its_init_and_its_heirs_are_checked_too():
    class Wide(Config):
        """A larger one."""

    with pytest.raises(ValueError, match="Config: size=0"):
        Wide(0)


def test_needs_compare_lengths_and_shapes_and_leave_out_none():
    @accepts(a=rules.reals(), b=rules.maybe(rules.reals()), needs=same_length("a", "b"))
    def lengths(a, b=None):
        return b

    @accepts(a=rules.reals(), b=rules.maybe(rules.reals()), needs=(same_shape("a", "b"),))
    def shapes(a, b=None):
        return b

    assert lengths([1]) is None
    assert lengths([1, 2], [[1], [2]]).shape == (2, 1)
    with pytest.raises(ValueError, match="lengths: expected equal lengths, got a 2, b 3"):
        lengths([1, 2], [1, 2, 3])
    with pytest.raises(TypeError, match="lengths: "):
        lengths(1, 2)  # numbers have no length
    assert shapes([1, 2]) is None
    with pytest.raises(ValueError, match=r"shapes: .* equal shapes, got a \(2,\), b \(2, 1\)"):
        shapes([1, 2], [[1], [2]])


@pytest.mark.parametrize(("value", "text"), [
    (np.zeros((3, 4), np.uint8), "<ndarray of uint8, shape (3, 4)>"), ([1, 2], "[1, 2]"),
    (torch.zeros(9), "<Tensor of torch.float32, shape (9,)>"), ("a" * 99, "'" + "a" * 56 + "…")])
def test_a_value_is_shown_in_at_most_60_characters(value, text):
    assert shown(value) == text


def test_a_value_that_cannot_be_shown_is_shown_by_its_type():
    class Mute:
        """Raises when asked for its words."""

        shape = dtype = None

        def __repr__(self):
            raise RuntimeError

    assert shown(Mute()) == "a Mute"


COLUMN = (1.0, 2.5)


@pytest.mark.parametrize("values", [
    COLUMN, list(COLUMN), np.array(COLUMN), np.array(COLUMN, np.float32), pd.Series(COLUMN),
    torch.tensor(COLUMN), torch.tensor(COLUMN, requires_grad=True), np.ma.array(COLUMN),
    torch.tensor(COLUMN, dtype=torch.float64)[None][0]], ids=lambda v: type(v).__name__)
def test_real_numbers_come_from_lists_series_and_tensors(values):
    array = rules.reals(1)(values)
    assert type(array) is np.ndarray
    assert array.dtype == float
    assert array.tolist() == list(COLUMN)


def test_narrow_integers_and_whole_numbers_of_any_length_become_real_without_wrapping():
    assert (-rules.reals(1)(np.array([200, 90], np.uint8))).tolist() == [-200, -90]
    assert rules.reals(1)([10**30, 1]).tolist() == [1e30, 1]
    assert rules.reals(1)([True, False]).tolist() == [1, 0]
    assert rules.reals(0)(np.float32(0.5)).shape == ()
    assert rules.reals(2)(pd.DataFrame({"a": [1], "b": [2]})).tolist() == [[1, 2]]


def test_an_array_of_float64_is_taken_as_it_is():
    array = np.arange(3.0)
    assert rules.reals(1)(array) is array


@pytest.mark.parametrize(("rule", "values", "kind", "message"), [
    (rules.reals(), [1, [2]], ValueError, "rows of unequal length"),
    (rules.reals(), [1, None], TypeError, "got object"),
    (rules.reals(), [Decimal(1)], TypeError, "got object"),
    (rules.reals(), [1j], TypeError, "got complex128"),
    (rules.reals(), np.array(["2026"], "M8"), TypeError, "got datetime64"),
    (rules.reals(), [10**400], ValueError, "got one beyond float64"),
    (rules.reals(), np.ma.array([1, 2], mask=[0, 1]), ValueError, "got masked entries"),
    (rules.reals((1, 2)), 3.0, ValueError, r"in 1 or 2-d, got shape \(\)"),
    (rules.reals(1, least=2), [1], ValueError, "at least 2, got 1"),
    (rules.reals(finite=False), [np.inf, np.nan], ValueError, "numbers, got nan at index 1"),
    (rules.reals(nan=True), [np.nan, -np.inf], ValueError, "got -inf at index 1"),
    (rules.reals(low=0, nan=True), [np.nan, -1], ValueError, "≥ 0, got -1.0 at index 1"),
    (rules.reals(2, 0, 1), [[0, 1], [0, 1.5]], ValueError, r"≥ 0 and ≤ 1 .*1.5 at index \(1, 1\)"),
    (rules.reals(above=0), [1, 0], ValueError, "> 0, got 0.0 at index 1"),
    (rules.reals(above=0, finite=False), [np.inf, -1], ValueError, "> 0, got -1.0 at index 1"),
    (rules.reals(below=1), [1], ValueError, "< 1, got 1.0 at index 0"),
    (rules.integers(), [1.0], TypeError, "whole numbers, got float64"),
    (rules.integers(), [True], TypeError, "got bool"),
    (rules.integers(1, 0), [3, -1], ValueError, "≥ 0 in 1-d, got -1 at index 1"),
    (rules.integers(high=5), np.array([6], np.uint64), ValueError, "≤ 5, got 6"),
    (rules.integers(), np.array([2**63], np.uint64), ValueError, "got 9223372036854775808"),
    (rules.integers(least=1), [], ValueError, "at least 1, got 0"),
    (rules.labels(), [0, 2], ValueError, "only 0 and 1 in 1-d, got 2 at index 1"),
    (rules.labels(), [0, np.nan], ValueError, "got nan at index 1"),
    (rules.labels(), ["0"], TypeError, "got <U1"),
])
def test_arrays_that_lose_something_are_refused_with_the_place(rule, values, kind, message):
    with pytest.raises(kind, match=message):
        rule(values)


def test_what_may_be_infinite_or_not_a_number_is_taken_where_a_rule_says_so():
    assert rules.reals(finite=False)([np.inf, -np.inf]).tolist() == [np.inf, -np.inf]
    assert rules.reals(finite=False, above=0)([np.inf, 1e-320])[0] == np.inf
    assert np.isnan(rules.reals(finite=False, nan=True)([np.nan, np.inf])[0])
    assert rules.reals()([1e200, -1e308]).tolist() == [1e200, -1e308]  # no sum of squares


def test_whole_numbers_and_labels_become_int64():
    for values in (np.array([0, 1], np.uint8), torch.tensor([0, 1]), pd.Series([0, 1]), [0, 1]):
        assert rules.integers(1)(values).dtype == np.int64
        assert rules.labels()(values).dtype == np.int64
    assert rules.labels()([True, 0.0]).tolist() == [1, 0]
    assert rules.integers(1)([]).shape == (0,)


@pytest.mark.parametrize(("value", "whole"), [
    (3, 3), (np.int8(3), 3), (np.uint64(2**63), 2**63), (np.array(3), 3), (torch.tensor(3), 3),
    (10**30, 10**30)])
def test_a_whole_number_is_taken_from_any_integer_type(value, whole):
    assert rules.integer(0)(value) == whole
    assert type(rules.integer(0)(value)) is int


@pytest.mark.parametrize("value", [True, np.True_, torch.tensor(True), 3.0, "3", None, [3],
                                   np.array([3.0])])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(TypeError, match="expected a whole number ≥ 0"):
        rules.integer(0)(value)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.uint8(2), np.array(2.0),
                                   torch.tensor(2.0, requires_grad=True), torch.tensor(2)])
def test_a_number_is_taken_from_any_real_type(value):
    assert rules.number(0)(value) == 2
    assert type(rules.number(0)(value)) in (int, float)


def test_a_number_may_be_a_whole_one_too_long_for_64_bits():
    assert rules.number(above=0)(6 * 10**24) == 6 * 10**24  # a budget in FLOPs


@pytest.mark.parametrize(("value", "kind"), [
    (math.nan, ValueError), (math.inf, ValueError), (-1, ValueError), (1, ValueError),
    (10**400, ValueError), (np.float64(np.nan), ValueError), (True, TypeError),
    (np.True_, TypeError), ("0.5", TypeError), (1j, TypeError), (None, TypeError),
    (np.array([0.5]), TypeError), (torch.tensor([0.5]), TypeError), (Decimal("0.5"), TypeError)])
def test_what_is_no_number_in_the_range_is_refused(value, kind):
    with pytest.raises(kind, match="expected a finite number ≥ 0 and < 1"):
        rules.number(0, below=1)(value)


def test_choices_types_texts_and_lists():
    assert rules.one_of("a", None)(np.str_("a")) == "a"
    assert rules.one_of("a", None)(None) is None
    for wrong in ("b", 1, ["a"], np.array(["a", "a"])):
        with pytest.raises(ValueError, match="expected one of 'a', None"):
            rules.one_of("a", None)(wrong)
    with pytest.raises(ValueError, match="expected one of 1"):
        rules.one_of(1)(True)
    with pytest.raises(TypeError, match="expected int or str, got float"):
        rules.a(int, str)(0.5)
    with pytest.raises(ValueError, match="half a surrogate pair at index 1"):
        rules.text("a\ud800")
    with pytest.raises(TypeError, match="expected text, got bytes"):
        rules.text(b"a")
    with pytest.raises(TypeError, match="expected a function, got str"):
        rules.function("f")
    assert rules.each(rules.integer())(x for x in (1, np.int8(2))) == [1, 2]
    for wrong, kind, said in (("12", TypeError, "a list, got str"), (3, TypeError, "got int"),
                              ([1], ValueError, "at least 2, got 1"),
                              ([1, "a"], TypeError, "got str, at index 1")):
        with pytest.raises(kind, match=said):
            rules.each(rules.integer(), least=2)(wrong)


@pytest.mark.parametrize(("rule", "value", "kind"), [
    (rules.tensor(), [1.0], TypeError), (rules.tensor(), torch.tensor([1]), TypeError),
    (rules.tensor(), torch.tensor([1j]), TypeError),
    (rules.tensor(floating=False), torch.tensor([1.0]), TypeError),
    (rules.tensor(floating=False), torch.tensor([1j]), TypeError),
    (rules.tensor(floating=False), torch.tensor([True]), TypeError),
    (rules.tensor(2), torch.ones(2), ValueError),
    (rules.tensor(finite=True), torch.tensor([math.nan]), ValueError)])
def test_tensors_of_another_kind_are_refused(rule, value, kind):
    with pytest.raises(kind, match="expected a tensor"):
        rule(value)


def test_a_tensor_is_taken_as_it_is():
    value = torch.ones(2, 2, dtype=torch.float16)
    assert rules.tensor((1, 2), finite=True)(value) is value


@once
@given(arrays(st.sampled_from([np.float64, np.float32, np.int8, np.uint8, np.int64, bool]),
              st.tuples(st.integers(0, 4), st.integers(0, 3))),
       st.floats(-10, 10), st.floats(-10, 10), st.booleans(), st.booleans())
def test_a_rule_takes_just_the_arrays_whose_every_entry_fits(values, low, high, finite, nan):
    entries = [float(v) for v in values.ravel()]
    fits = all((nan if math.isnan(v) else low <= v < high) for v in entries)
    rule = rules.reals(2, low, below=high, finite=finite, nan=nan)
    if fits:
        assert np.array_equal(rule(values), values.astype(float), equal_nan=True)
    else:
        with pytest.raises(ValueError, match="expected "):
            rule(values)


ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(),
                     st.text(), st.binary(), st.lists(st.floats()), st.lists(st.text()),
                     st.dictionaries(st.text(), st.integers()), st.just(np.datetime64("2026")))


@once
@given(ANYTHING, st.sampled_from([
    rules.reals(1), rules.integers(), rules.labels(), rules.number(0), rules.integer(), rules.text,
    rules.tensor(), rules.one_of(1, "a"), rules.each(rules.number()), rules.function,
    rules.maybe(rules.reals(0, 0, 1))]))
def test_a_rule_returns_or_raises_a_value_or_type_error(value, rule):
    with contextlib.suppress(ValueError, TypeError):
        rule(value)


def test_help_on_a_helper_shows_its_true_signature():
    assert str(inspect.signature(mse)) == "(theta, X, y)"
