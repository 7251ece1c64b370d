"""Text to tokens: byte-pair encoding, and an n-gram model as a yardstick."""

import re
from collections import Counter

import numpy as np

PIECE = rb" ?[A-Za-z]+| ?[0-9]+| ?[^A-Za-z0-9\s]+|\s+"  # a merge never crosses a piece's border


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


def as_pieces(pieces):
    """Bytes of the pieces, joined, and the piece each byte belongs to: two int64 arrays."""
    ids = np.frombuffer(b"".join(pieces), dtype=np.uint8).astype(np.int64)
    return ids, np.repeat(np.arange(len(pieces)), [len(p) for p in pieces])


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


def bpe_encode(text, merges):
    """Tokens of `text` (bytes) under `merges`: int64. Each distinct piece is encoded once."""
    pieces = re.findall(PIECE, text)
    distinct = {p: i for i, p in enumerate(dict.fromkeys(pieces))}
    ids, piece = as_pieces(list(distinct))
    for i, pair in enumerate(merges):
        ids, piece = merge_pair(ids, piece, pair, 256 + i)
    parts = np.split(ids, np.flatnonzero(np.diff(piece)) + 1)
    return np.concatenate([ids[:0], *(parts[distinct[p]] for p in pieces)])


def bpe_decode(ids, merges):
    """Bytes of a sequence of tokens: the exact inverse of `bpe_encode`."""
    meaning = [bytes([i]) for i in range(256)]
    for left, right in merges:
        meaning.append(meaning[left] + meaning[right])
    return b"".join(meaning[i] for i in ids)


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
