"""Texts to train on, by name: prose without leaks, code, altered versions, a made-up language."""

import re

import numpy as np

from helpers import data
from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need
from helpers.foundations.tokens import bpe_encode, token_ids

PRIME = 0x9E3779B97F4A7C15  # any odd number: its powers have inverses modulo 2^64
PASSAGE = 1024  # bytes; the unit that is shuffled, spoilt, copied, filtered and mixed
N_SAMPLE = 64  # clean passages that the filter is counted on; no pool contains them
EXPECTED = ("prose, code or language, then any of :pool=BYTES :noise=SHARE :duplicate=SHARE "
            ":filter=SHARE :hard=SHARE :mix=SHARE, such as prose:pool=2^18:noise=0.3")
N_SYMBOLS, LANGUAGE_TOKENS, HELD_OUT_TOKENS = 64, 2**22, 2**18


@accepts(name=rules.text)
def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out tokens (bytes, uint8) of the text called `name`.

    A text, then what is done to its training half, from left to right. The held-out half is always
    the clean text of that name, so that losses compare. A share is one of the passages of 1024
    bytes, put into random order first; the plain text keeps its order.

    pool: only so many bytes, the same ones for each later step; noise: the bytes of so many
    passages are shuffled; duplicate: so many are overwritten by one of them; filter: only
    the share that 2-grams of a small clean sample find likeliest is kept; hard: the least likely
    instead; mix: so many passages come from the other one of prose and code, of as many as the
    shorter text has.

    Raises ValueError for a name that is not of this form.
    """
    kind, *steps = name.split(":")
    if kind not in ("prose", "code", "language"):
        raise ValueError(f"{name!r} is no text: expected {EXPECTED}")
    if kind == "language":
        if steps:
            raise ValueError(f"{name!r}: expected language alone, without steps")
        p = grammar()
        return sample_text(p, LANGUAGE_TOKENS, 1), sample_text(p, HELD_OUT_TOKENS, 2)
    train, held_out = _split(kind)
    if not steps:
        return train, held_out
    passages = _passages(train)
    pool, clean = passages[:-N_SAMPLE], passages[-N_SAMPLE:]
    other = "code" if kind == "prose" else "prose"
    other = _passages(_split(other)[0]) if "mix" in name else pool
    for number, step in enumerate(steps):
        word, _, value = step.partition("=")
        rng = np.random.default_rng((7, number))
        pool = _alter(pool, word, _number(value, word, name), clean, other, rng)
        if not len(pool):
            raise ValueError(f"{name!r}: nothing is left after {step}; expected a larger share")
    return pool.ravel(), held_out


@accepts(merges=rules.anything)  # bpe_encode checks them
def tokenised(merges: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, float]:
    """The prose in tokens of `bpe_train`'s merges: to train on, held out, held-out tokens a byte.

    No training document shares passages with a held-out one.
    """
    train, held_out = (bytes(tokens) for tokens in load("prose"))
    tokens = bpe_encode(held_out, merges)
    return bpe_encode(train, merges), tokens, len(tokens) / len(held_out)


def _alter(pool, word, value, clean, other, rng):
    if word == "pool":
        return pool[:int(value) // PASSAGE]
    pool = pool[:len(other)] if word == "mix" else pool
    n = round(value * len(pool))
    if word in ("filter", "hard"):
        order = np.argsort(surprise(pool, clean), kind="stable")
        return pool[np.sort(order[:n] if word == "filter" else order[len(pool) - n:])]
    pool, chosen = pool.copy(), rng.permutation(len(pool))[:n]
    if word == "noise":
        pool[chosen] = spoil(pool[chosen], rng)
    elif word == "duplicate":
        pool[chosen] = pool[chosen[:1]]
    else:
        pool[chosen] = other[:n]
    return pool


def _number(value: str, word: str, name: str) -> float:
    """The value of a step, checked. Raises ValueError that says what was expected."""
    base, _, power = value.partition("^")
    try:
        if not re.fullmatch(r"[0-9.e-]+(\^[0-9]+)?", value):
            raise ValueError
        found = float(base) ** int(power or 1)
    except (ValueError, OverflowError):
        raise ValueError(f"{name!r} is no text: expected {EXPECTED}") from None
    known = ("pool", "noise", "duplicate", "filter", "hard", "mix")
    if word not in known or not (PASSAGE <= found < 2**63 if word == "pool" else 0 <= found <= 1):
        raise ValueError(f"{name!r}, at {word}={value}: expected {EXPECTED}; a pool has at least "
                         f"{PASSAGE} bytes, a share lies between 0 and 1")
    return found


def _split(kind: str) -> tuple[np.ndarray, np.ndarray]:
    train_docs, held_out = without_leaks(*data.split_documents(data.documents(kind)))
    return data.encode(train_docs), data.encode(held_out)


def _passages(tokens: np.ndarray) -> np.ndarray:
    """Passages in random order, (n_passages, PASSAGE); the rest at the end is dropped."""
    whole = tokens[:len(tokens) // PASSAGE * PASSAGE].reshape(-1, PASSAGE)
    return whole[np.random.default_rng(0).permutation(len(whole))]


@accepts(train_docs=rules.each(rules.text), held_out=rules.each(rules.text),
         length=rules.integer(1), stride=rules.integer(1))
def without_leaks(train_docs: list[str], held_out: list[str], length: int = 256, stride: int = 16
                  ) -> tuple[list[str], list[str]]:
    """Leave out training documents that share a passage of `length` bytes with a held-out one.

    Passages at every `stride`-th byte are looked at: anything of length + stride − 1 bytes is
    found. By rolling hashes of 64 bits; documents that are shorter share nothing.
    """
    none = np.empty(0, dtype=np.uint64)
    known = np.unique(np.concatenate([none, *(_hashes(text, length, 1) for text in held_out)]))

    def leaks(text: str) -> bool:
        found = _hashes(text, length, stride)
        place = np.minimum(np.searchsorted(known, found), len(known) - 1)
        return bool(np.any(known[place] == found))

    return [text for text in train_docs if not (len(known) and leaks(text))], held_out


def _hashes(text: str, length: int, stride: int) -> np.ndarray:
    """Σ byte · PRIME^place of each passage, modulo 2^64: uint64 of shape (n_passages,)."""
    raw = np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.uint64)
    powers, inverses = (np.cumprod(np.full(len(raw), base, dtype=np.uint64))
                        for base in (PRIME, pow(PRIME, -1, 2**64)))
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(raw * powers, dtype=np.uint64)])
    starts = np.arange(0, len(raw) - length + 1, stride)
    return (total[starts + length] - total[starts]) * inverses[starts]


@accepts(passages=token_ids(2), rng=rules.a(np.random.Generator))
def spoil(passages, rng):
    """Passages (n, length) with the bytes of each one in random order: same letters, no words."""
    return rng.permuted(passages, axis=1)


@accepts(passages=token_ids(2, 256), clean=token_ids(2, 256), needs=need(
    lambda passages: passages.shape[1] > 1, "passages of two bytes or more"))
def surprise(passages, clean):
    """Mean nats per byte of each passage (n, length) under 2-grams counted in `clean` passages.

    Half a count is added to each pair, so that no pair is impossible. Returns (n,).
    """
    counts = np.full((256, 256), 0.5)
    np.add.at(counts, (clean[:, :-1], clean[:, 1:]), 1)
    nats = -np.log(counts / counts.sum(axis=1, keepdims=True))
    return nats[passages[:, :-1], passages[:, 1:]].mean(axis=1)


@accepts(unique=rules.reals(above=0), D=rules.reals(above=0), R_star=rules.reals(above=0))
def effective_tokens(unique, D, R_star):
    """Fresh tokens that D tokens are worth if only `unique` of them differ.

    D' = U + U R* (1 − e^(−R/R*)) with R = D/U − 1 repeats (Muennighoff et al. 2023,
    arXiv:2305.16264, eq. 5). Where D ≤ U nothing is repeated, and D' = D.
    """
    U = np.minimum(unique, D)
    R = D / U - 1
    return U + U * R_star * (1 - np.exp(-R / R_star))


@accepts(seed=rules.integer(0), n=rules.integer(1, 256), slope=rules.number(0, 100),
         strength=rules.number(0, 100))
def grammar(seed: int = 0, n: int = N_SYMBOLS, slope: float = 0.8, strength: float = 2.0
            ) -> np.ndarray:
    """A made-up language: p(next | last but one, last), shape (n, n, n), rows sum to 1.

    The score of a next symbol is a sum over n directions of what the two symbols before it say
    there; direction k counts strength · k^−slope, so that there is a long tail of ever smaller
    things to learn (chapter 02). Symbol i is rarer by 1/(i + 1), as words are.
    """
    rng = np.random.default_rng(seed)
    far, near, out = rng.normal(size=(3, n, n)) / np.sqrt(2)
    weight = np.arange(1.0, n + 1) ** -slope
    weight *= strength / np.sqrt(np.sum(weight**2))
    scores = (far[:, None] + near[None]) * weight @ out.T  # (n, n, n)
    p = np.exp(scores - scores.max(axis=2, keepdims=True)) / np.arange(1, n + 1)
    return p / p.sum(axis=2, keepdims=True)


def _language(p):
    """Rule: probabilities of each next symbol after each pair, all above 0, at most 256 symbols."""
    p = rules.reals(3, above=0, least=1)(p)
    if len(set(p.shape)) > 1 or len(p) > 256:
        raise ValueError(f"expected shape (n, n, n) with n ≤ 256, got {p.shape}")
    if not np.allclose(p.sum(axis=2), 1):
        raise ValueError("expected rows that sum to 1")
    return p


@accepts(p=_language)
def entropy_rate(p):
    """Entropy in nats per symbol of the language p(next | last but one, last), (n, n, n).

    Also the share of the time that each pair of symbols is what came last, (n, n): the shares that
    one more symbol leaves as they are (Shannon 1948, section 7).
    """
    time_share = np.full(p.shape[:2], 1 / p.shape[0] ** 2)
    for _ in range(1000):
        after = np.einsum("ab,abc->bc", time_share, p)  # one symbol on, (a, b) has become (b, c)
        done, time_share = np.abs(after - time_share).sum() < 1e-13, after
        if done:
            break
    nats = -(p * np.log(p)).sum(axis=2)  # of the next symbol after each pair
    return float((time_share * nats).sum()), time_share


@accepts(p=_language, n_tokens=rules.integer(1), seed=rules.integer(0), n_lanes=rules.integer(1))
def sample_text(p: np.ndarray, n_tokens: int, seed: int, n_lanes: int = 256) -> np.ndarray:
    """A text in the language p (n, n, n): uint8 of shape (n_tokens,), n_lanes pieces end to end.

    Each piece begins with a pair drawn from its share of the time. Raises ValueError if n_lanes
    does not divide n_tokens.
    """
    if n_tokens % n_lanes:
        raise ValueError(f"{n_tokens} tokens have no {n_lanes} equal pieces")
    rng, n = np.random.default_rng(seed), len(p)
    _, share = entropy_rate(p)
    pair = np.searchsorted(share.cumsum(), rng.random(n_lanes)).clip(max=n * n - 1)
    rows = p.reshape(n * n, n).cumsum(axis=1)
    rows[:, -1] = 1  # rounding must not leave a gap
    text = np.empty((n_tokens // n_lanes, n_lanes), dtype=np.uint8)
    for place, u in zip(text, rng.random(text.shape), strict=True):
        place[:] = (rows[pair] <= u[:, None]).sum(axis=1)
        pair = pair % n * n + place
    return text.T.ravel()
