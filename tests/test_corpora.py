"""Texts by name: no leaks, known rates of noise and copies, a filter, a language's entropy."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import corpora, data

often = settings(max_examples=40, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def texts():
    """Two made-up texts, training and held-out half: 400 passages of words, 300 of digits."""
    rng = np.random.default_rng(0)
    words = " ".join(rng.choice(["apple", "pear", "plum", "fig", "lemon"], 110_000))
    digits = "".join(rng.choice(list("0123456789+-*= "), 110_000 * 3))
    halves = {"prose": (words[:400 * 1024], words[-9000:]), "code": (digits[:300 * 1024], "1+2")}
    return {kind: tuple(data.encode([half]) for half in pair) for kind, pair in halves.items()}


@pytest.fixture
def small(texts, monkeypatch):
    """The made-up texts in place of the real ones."""
    monkeypatch.setattr(corpora, "_split", texts.get)


def passages(name: str) -> np.ndarray:
    return corpora.load(name)[0].reshape(-1, corpora.PASSAGE)


def is_code(rows: np.ndarray) -> np.ndarray:
    return (rows < 64).mean(axis=1) > 0.5  # digits and signs come before the letters


def share_of_fruit(rows: np.ndarray) -> np.ndarray:
    return np.array([b"apple" in row.tobytes() for row in rows])


def test_the_plain_text_keeps_its_order_and_its_held_out_half(small):
    train, held_out = corpora.load("prose")
    assert (train.dtype, len(train), len(held_out)) == (np.uint8, 400 * 1024, 9000)
    assert np.array_equal(corpora.load("prose:noise=0.5")[1], held_out)


def test_a_name_gives_the_same_text_each_time(small):
    name = "prose:pool=2^17:noise=0.3:duplicate=0.2:filter=0.5"
    assert np.array_equal(corpora.load(name)[0], corpora.load(name)[0])


def test_a_smaller_pool_is_the_beginning_of_a_larger_one(small):
    large, tiny = corpora.load("prose:pool=2^18")[0], corpora.load("prose:pool=2^16")[0]
    assert (len(large), len(tiny)) == (2**18, 2**16)
    assert np.array_equal(large[:2**16], tiny)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
def test_noise_spoils_exactly_its_share_and_keeps_every_byte(small, rate):
    clean, noisy = passages("prose:pool=2^17"), passages(f"prose:pool=2^17:noise={rate}")
    spoilt = (clean != noisy).any(axis=1)
    assert spoilt.sum() == round(rate * len(clean))
    assert np.array_equal(np.sort(clean, axis=1), np.sort(noisy, axis=1))
    assert share_of_fruit(clean).all()
    assert share_of_fruit(noisy[spoilt]).sum() <= 0.4 * spoilt.sum()  # some by chance


def test_duplicates_are_copies_of_one_passage_in_exactly_their_share(small):
    before, after = passages("prose:pool=2^18"), passages("prose:pool=2^18:duplicate=0.5")
    changed = (before != after).any(axis=1)
    copied, times = np.unique(after, axis=0, return_counts=True)
    assert (changed.sum(), times.max()) == (127, 128)  # one of the 128 is the original itself
    assert (before == copied[times.argmax()]).all(axis=1).sum() == 1


def test_a_mixture_has_its_share_of_the_other_text_either_way_round(small):
    assert is_code(passages("prose:pool=2^17:mix=0.25")).mean() == 0.25
    assert is_code(passages("code:pool=2^17:mix=0.75")).mean() == 0.25


def test_the_filter_keeps_clean_passages_without_seeing_which_are_spoilt(small):
    clean = passages("prose:pool=2^17")
    kept = passages("prose:pool=2^17:noise=0.5:filter=0.5")
    assert len(kept) == len(clean) // 2
    known = {row.tobytes() for row in clean}
    assert all(row.tobytes() in known for row in kept)
    rest = passages("prose:pool=2^17:noise=0.5:hard=0.5")
    assert not any(row.tobytes() in known for row in rest)


def test_the_filters_clean_sample_is_in_no_pool(small):
    pool = {row.tobytes() for row in passages("prose:pool=2^30")}
    assert len(pool) == 400 - corpora.N_SAMPLE


@pytest.mark.parametrize("name", ["poetry", "", "prose:", "prose:pool", "prose:pool=many",
                                  "prose:noise=1.5", "prose:noise=-0.1", "prose:noise=nan",
                                  "prose:pool=10", "prose:pool=inf", "language:noise=0.1",
                                  "prose:sing=0.5", "prose:pool=2^16:filter=0.001", "::", ":",
                                  "prose:pool=2^1e9", "prose:pool=2^999999999", "prose:mix=0x1",
                                  "prose:pool=-8^0.5", "prose:pool=0^-1", "prose:mix=1_0",
                                  "prose:pool= 2^16", "prose:pool=2^16^2", "prose:noise=٣"])
def test_a_wrong_name_says_what_was_expected(small, name):
    with pytest.raises(ValueError, match="expected"):
        corpora.load(name)


@often
@given(st.text("0123456789.^-exj_ \u0663", max_size=12))
def test_a_share_lies_between_0_and_1_or_is_refused(value):
    with contextlib.suppress(ValueError):
        assert 0 <= corpora._number(value, "mix", f"prose:mix={value}") <= 1


@pytest.mark.parametrize("name", [None, 3, b"prose", ["prose"]])
def test_a_name_is_a_text(name):
    with pytest.raises(TypeError, match=r"name=.*expected text"):
        corpora.load(name)


def test_documents_that_share_a_long_passage_with_a_held_out_one_are_left_out():
    rng = np.random.default_rng(1)
    make = lambda n: "".join(rng.choice(list("abcdefgh "), n))
    own, shared, held_out = make(3000), make(300), make(2000)
    leaking = make(777) + shared + make(500)
    examined = held_out[:901] + shared + held_out[901:]
    kept, same = corpora.without_leaks([own, leaking, "short", ""], [examined, ""])
    assert (kept, same) == ([own, "short", ""], [examined, ""])


@pytest.mark.parametrize("held_out", [["a short question?"], [""], [], ["é" * 100, "b"]])
def test_held_out_documents_shorter_than_a_passage_are_shared_by_none(held_out):
    train = ["long " * 100, "", "a short question?"]
    assert corpora.without_leaks(train, held_out) == (train, held_out)


@often
@given(st.lists(st.text("ab", max_size=40), max_size=5), st.lists(st.text("ab", max_size=40),
                                                                 max_size=3), st.integers(1, 12))
def test_leaks_are_those_that_a_search_finds(train, held_out, length):
    kept, _ = corpora.without_leaks(train, held_out, length, 1)
    leaks = lambda t: any(t[i:i + length] in h for h in held_out
                          for i in range(len(t) - length + 1))
    assert kept == [t for t in train if not leaks(t)]


def test_a_shared_passage_shorter_than_asked_for_is_no_leak():
    shared = "one nation under the same law " * 8  # 240 bytes
    kept, _ = corpora.without_leaks([shared + "x" * 400], [shared + "y" * 400])
    assert len(kept) == 1


def test_the_real_prose_loses_little_and_shares_nothing_long():
    train_docs, held_out = data.split_documents(data.prose())
    train, examined = corpora.load("prose")
    assert 0.9 < len(train) / len(data.encode(train_docs)) < 1
    assert np.array_equal(examined, data.encode(held_out))
    seen, text = train.tobytes(), examined.tobytes()
    assert not any(text[i:i + 300] in seen for i in range(0, len(text) - 300, 3001))


def test_the_real_code_is_the_recorded_one_and_has_unix_line_ends():
    files = data.documents("code")
    assert len(files) == 175
    assert not any("\r" in text for text in files)


def test_surprise_is_the_log_loss_of_smoothed_pair_counts():
    clean = np.frombuffer(b"abababac", dtype=np.uint8)[None]
    found = corpora.surprise(np.frombuffer(b"abac", dtype=np.uint8)[None], clean)
    after_a, after_b = 4 + 128, 3 + 128  # counts with half a count for each of 256 bytes
    expected = -np.mean(np.log([3.5 / after_a, 3.5 / after_b, 1.5 / after_a]))
    assert np.allclose(found, expected)


def test_effective_tokens_have_the_papers_values_and_limits():
    worth = lambda epochs: corpora.effective_tokens(1.0, epochs, 15.388)
    assert np.allclose([worth(4), worth(16)], [3.73, 10.6], rtol=5e-3)  # Muennighoff et al. 2023
    assert np.isclose(worth(1e9), 16.388)
    assert corpora.effective_tokens(100, 60, 15.388) == 60  # nothing is repeated
    assert np.isclose(corpora.effective_tokens(1.0, 8, 1e9), 8)  # repeats as good as fresh ones


def test_the_entropy_rate_is_that_of_the_eigenvector_and_of_a_long_text():
    p = corpora.grammar(seed=3, n=8)
    rate, share = corpora.entropy_rate(p)
    step = np.zeros((64, 64))  # pair (a, b) → pair (b, c)
    for a in range(8):
        for b in range(8):
            step[a * 8 + b, b * 8:b * 8 + 8] = p[a, b]
    values, vectors = np.linalg.eig(step.T)
    steady = np.real(vectors[:, np.argmax(np.real(values))])
    steady = (steady / steady.sum()).reshape(8, 8)
    assert np.allclose(share, steady)
    assert np.isclose(rate, -(steady[..., None] * p * np.log(p)).sum())
    lanes = corpora.sample_text(p, 2**18, seed=0).reshape(256, -1).astype(int)
    nats = -np.log(p[lanes[:, :-2], lanes[:, 1:-1], lanes[:, 2:]])
    assert abs(nats.mean() - rate) < 4 * nats.std() / nats.size**0.5


def test_an_even_language_has_the_entropy_of_a_die_and_a_certain_one_none():
    assert np.isclose(corpora.entropy_rate(np.full((6, 6, 6), 1 / 6))[0], np.log(6))
    cycle = np.full((3, 3, 3), 1e-12)
    cycle[:, np.arange(3), (np.arange(3) + 1) % 3] = 1
    assert corpora.entropy_rate(cycle / cycle.sum(axis=2, keepdims=True))[0] < 1e-9


def test_the_language_uses_all_symbols_and_its_halves_differ():
    train, held_out = corpora.load("language")
    assert (train.max(), train.min(), train.dtype) == (corpora.N_SYMBOLS - 1, 0, np.uint8)
    assert not np.array_equal(train[:len(held_out)], held_out)
    with pytest.raises(ValueError, match="equal pieces"):
        corpora.sample_text(corpora.grammar(n=4), 1000, 0)


LANGUAGE, BYTES = corpora.grammar(n=4), np.zeros((2, 8), dtype=np.uint8)


@pytest.mark.parametrize(("call", "said"), [
    (lambda: corpora.effective_tokens(0, 10, 15), "unique=0: expected finite numbers > 0"),
    (lambda: corpora.effective_tokens(10, -1, 15), "D=-1"),
    (lambda: corpora.effective_tokens(10, 20, 0), "R_star=0"),
    (lambda: corpora.effective_tokens(10, 20, float("nan")), "R_star=nan"),
    (lambda: corpora.grammar(n=0), "n=0: expected a whole number ≥ 1 and ≤ 256"),
    (lambda: corpora.grammar(n=257), "n=257"),
    (lambda: corpora.grammar(seed=-1), "seed=-1"),
    (lambda: corpora.grammar(slope=float("inf")), "slope=inf"),
    (lambda: corpora.entropy_rate(np.eye(3)), "p.*3-d"),
    (lambda: corpora.entropy_rate(np.ones((2, 2, 2))), "p.*rows that sum to 1"),
    (lambda: corpora.entropy_rate(np.ones((2, 2, 3)) / 3), r"p.*shape \(n, n, n\)"),
    (lambda: corpora.entropy_rate(np.eye(2)[[0, 0]][None].repeat(2, 0)), "p.*numbers > 0"),
    (lambda: corpora.sample_text(LANGUAGE, 0, 0), "n_tokens=0"),
    (lambda: corpora.sample_text(LANGUAGE, 256, 0, 0), "n_lanes=0"),
    (lambda: corpora.sample_text(LANGUAGE, 256, None), "seed=None"),
    (lambda: corpora.surprise(BYTES.astype(int) + 256, BYTES), "passages.*< 256, got 256"),
    (lambda: corpora.surprise(BYTES[0], BYTES), "passages.*2-d"),
    (lambda: corpora.surprise(BYTES[:, :1], BYTES), "passages of two bytes or more"),
    (lambda: corpora.spoil(BYTES, 0), "rng=0: expected Generator"),
    (lambda: corpora.without_leaks("a text", []), "train_docs.*a list, got str"),
    (lambda: corpora.without_leaks([], [], 0), "length=0"),
    (lambda: corpora.without_leaks([], [], 8, 0), "stride=0"),
])
def test_what_makes_no_sense_is_refused_by_name(call, said):
    with pytest.raises((TypeError, ValueError), match=said):
        call()
