"""Text to tokens: byte-pair encoding, and an n-gram model as a yardstick."""

import re
from collections import Counter
from collections.abc import Callable

import numpy as np

from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need, same_length

PIECE = rb" ?[A-Za-z]+| ?[0-9]+| ?[^A-Za-z0-9\s]+|\s+"  # a merge never crosses a piece's border


@accepts(ndim=rules.maybe(rules.integer(1)), below=rules.integer(1), least=rules.integer(0))
def token_ids(ndim: int | None = 1, below: int = 2**63, least: int = 0) -> Callable:
    """Rule for `accepts`: token ids, 0 ≤ id < below, as an array of the integer type they have.

    A long text is neither copied nor widened. Bytes are ids from 0 to 255.
    """
    limit = f" < {below}" if below < 2**63 else ""
    expected = f"expected {f'{ndim}-d ' if ndim else ''}token ids, whole numbers ≥ 0{limit}"

    def rule(values):
        if isinstance(values, bytes | bytearray | memoryview):
            values = np.frombuffer(values, dtype=np.uint8)
        found = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
        found = found if found.size else found.astype(np.int64)
        if found.dtype.kind not in "iu":
            raise TypeError(f"{expected}, got {found.dtype}")
        if found.ndim != ndim if ndim else not found.ndim:
            raise ValueError(f"{expected}, got shape {found.shape}")
        if found.size < least:
            raise ValueError(f"{expected}, at least {least}, got {found.size}")
        ends = np.iinfo(found.dtype)  # only what the type does not say already is looked at
        least_id = found.min(initial=0) if ends.min < 0 else 0
        largest = found.max(initial=0) if ends.max >= below else 0
        if least_id < 0 or largest >= below:
            raise ValueError(f"{expected}, got {least_id if least_id < 0 else largest}")
        return found

    return rule


def _text(value):
    """Rule: bytes."""
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"expected bytes, such as text.encode(), got {type(value).__name__}")
    return bytes(value)


def _merges(values):
    """Rule: pairs of ids in the order of their making, each of two tokens that came before it."""
    pairs = np.asarray(values)
    if not len(pairs):
        return []
    if pairs.dtype.kind not in "iu" or pairs.ndim != 2 or pairs.shape[1] != 2:
        raise TypeError("expected pairs of token ids, such as (116, 104)")
    wrong = (pairs.min(axis=1) < 0) | (pairs.max(axis=1) >= 256 + np.arange(len(pairs)))
    if wrong.any():
        at = int(wrong.argmax())
        raise ValueError(f"merge {at} is {tuple(pairs[at].tolist())}: expected ids from 0 to "
                         f"{255 + at}, tokens that were there before it")
    return list(map(tuple, pairs.tolist()))


def _pair(values):
    """Rule: two token ids."""
    left, right = values
    return rules.integer(0)(left), rules.integer(0)(right)


def _to_change(values):
    """Rule: whole numbers that may be overwritten."""
    ids = token_ids()(values)
    return ids if ids.flags.writeable else ids.copy()


@accepts(ids=_to_change, piece=token_ids(), pair=_pair, new=rules.integer(0), needs=(
    same_length("ids", "piece"),
    need(lambda ids, new: new <= np.iinfo(ids.dtype).max, "an integer type that holds the new id")))
def merge_pair(ids, piece, pair, new):
    """Replace each adjacent `pair` inside a piece by `new`, from the left.

    `ids` and `piece` (which piece each token belongs to) have the same shape; returns both,
    shorter. The given `ids` is overwritten. In a run such as aaa only every other place is taken.
    """
    same = (ids[:-1] == pair[0]) & (ids[1:] == pair[1]) & (piece[:-1] == piece[1:])
    at = np.flatnonzero(same)
    if pair[0] == pair[1] and len(at):
        place = np.arange(len(at))
        start = np.maximum.accumulate(np.where(np.diff(at, prepend=-2) > 1, place, 0))
        at = at[(place - start) % 2 == 0]
    ids[at] = new
    return np.delete(ids, at + 1), np.delete(piece, at + 1)


@accepts(pieces=rules.each(_text))
def as_pieces(pieces):
    """Bytes of the pieces, joined, and the piece each byte belongs to: two int64 arrays."""
    ids = np.frombuffer(b"".join(pieces), dtype=np.uint8).astype(np.int64)
    return ids, np.repeat(np.arange(len(pieces)), [len(p) for p in pieces])


@accepts(text=_text, vocab=rules.integer(256))
def bpe_train(text, vocab):
    """Merges of byte-pair encoding, in order: pairs of token ids; merge i makes token 256 + i.

    `text` is bytes, `vocab` the number of tokens wanted. The most frequent pair is merged; of
    equally frequent ones that with the smallest ids (Sennrich, Haddow & Birch 2016). Fewer merges
    are returned if each piece has become one token before.
    """
    counted = Counter(re.findall(PIECE, text))
    ids, piece = as_pieces(list(counted))
    count, merges = np.array(list(counted.values())), []
    for new in range(256, vocab):
        inside = piece[:-1] == piece[1:]
        if not inside.any():  # each piece is one token
            break
        code = (ids[:-1] * new + ids[1:])[inside]  # one number per pair
        totals = np.bincount(code, count[piece[:-1][inside]])
        merges.append(divmod(int(totals.argmax()), new))  # the first of the largest
        ids, piece = merge_pair(ids, piece, merges[-1], new)
    return merges


@accepts(text=_text, merges=_merges)
def bpe_encode(text, merges):
    """Tokens of `text` (bytes) under `merges`: int64. Each distinct piece is encoded once."""
    pieces = re.findall(PIECE, text)
    distinct = {p: i for i, p in enumerate(dict.fromkeys(pieces))}
    ids, piece = as_pieces(list(distinct))
    for i, pair in enumerate(merges):
        ids, piece = merge_pair(ids, piece, pair, 256 + i)
    parts = np.split(ids, np.flatnonzero(np.diff(piece)) + 1)
    return np.concatenate([ids[:0], *(parts[distinct[p]] for p in pieces)])


@accepts(ids=token_ids(), merges=_merges, needs=need(
    lambda ids, merges: not len(ids) or ids.max() < 256 + len(merges), "ids below 256 + merges"))
def bpe_decode(ids, merges):
    """Bytes of a sequence of tokens: the exact inverse of `bpe_encode`."""
    meaning = [bytes([i]) for i in range(256)]
    for left, right in merges:
        meaning.append(meaning[left] + meaning[right])
    return b"".join(meaning[i] for i in ids)


@accepts(train=token_ids(), test=token_ids(None, least=1), vocab=rules.integer(1),
         order=rules.integer(1), needs=need(
    lambda train, test, vocab: all(t.max(initial=0) < vocab for t in (train, test)),
    "ids below vocab"))
def ngram_loss(train: np.ndarray, test: np.ndarray, vocab: int, order: int = 3) -> float:
    """Mean nats per token of `test` under an interpolated n-gram model counted on `train`.

    p_n(t | context) = (count(context, t) + different · p_{n−1}(t)) / (count(context) + different):
    the more different tokens followed a context, the more weight goes to the shorter one; p_0 is
    even (Witten & Bell 1991). `train` is one text (n,), `test` one text or windows (…, n), of
    which the first order − 1 tokens are not scored. Raises ValueError if codes of `order` tokens
    would not fit into 63 bits, or if a text has fewer tokens.
    """
    if min(len(train), test.shape[-1]) < order:
        raise ValueError(f"expected {order} tokens or more, got {len(train)} and {test.shape[-1]}")
    if order * np.log2(vocab) > 63:
        raise ValueError(f"order {order} with {vocab} tokens: codes would overflow 63 bits")
    p = np.full(test[..., order - 1:].shape, 1 / vocab)
    for n in range(1, order + 1):
        grams, counts = np.unique(_codes(train, n, vocab), return_counts=True)
        contexts, starts = np.unique(grams // vocab, return_index=True)
        asked = _codes(test[..., order - n:], n, vocab)
        followed = _look_up(contexts, np.add.reduceat(counts, starts), asked // vocab)
        different = _look_up(contexts, np.diff([*starts, len(grams)]), asked // vocab)
        seen = followed + different
        mixed = _look_up(grams, counts, asked) + different * p
        p = np.where(seen > 0, mixed / np.maximum(seen, 1), p)
    return float(-np.log(p).mean())


def _codes(tokens: np.ndarray, n: int, vocab: int) -> np.ndarray:
    """The n tokens from each place on, as one number."""
    stop = tokens.shape[-1] - n + 1
    return sum(tokens[..., i:stop + i].astype(np.int64) * vocab ** (n - 1 - i) for i in range(n))


def _look_up(keys: np.ndarray, values: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The value of each asked key, keys being sorted; 0 where there is none."""
    at = np.searchsorted(keys, asked).clip(max=len(keys) - 1)
    return np.where(keys[at] == asked, values[at], 0)
