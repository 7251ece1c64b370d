"""Texts to train on, by name: the prose of the course without leaks, and its altered versions."""

import numpy as np

from helpers import data

PRIME = 0x9E3779B97F4A7C15  # any odd number: its powers have inverses modulo 2^64


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out tokens (bytes, uint8) of the text called `name`."""
    if name != "prose":
        raise ValueError(f"{name!r} is no text: expected prose")
    train_docs, held_out = without_leaks(*data.split_documents(data.prose()))
    return data.encode(train_docs), data.encode(held_out)


def without_leaks(train_docs: list[str], held_out: list[str], length: int = 256, stride: int = 16
                  ) -> tuple[list[str], list[str]]:
    """Leave out training documents that share a passage of `length` bytes with a held-out one.

    Passages at every `stride`-th byte are looked at: anything of length + stride − 1 bytes is
    found. By rolling hashes of 64 bits; documents that are shorter share nothing.
    """
    known = np.unique(np.concatenate([_hashes(text, length, 1) for text in held_out]))

    def leaks(text: str) -> bool:
        found = _hashes(text, length, stride)
        place = np.minimum(np.searchsorted(known, found), len(known) - 1)
        return bool(np.any(known[place] == found))

    return [text for text in train_docs if not leaks(text)], held_out


def _hashes(text: str, length: int, stride: int) -> np.ndarray:
    """Σ byte · PRIME^place of each passage, modulo 2^64: uint64 of shape (n_passages,)."""
    raw = np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.uint64)
    powers, inverses = (np.cumprod(np.full(len(raw), base, dtype=np.uint64))
                        for base in (PRIME, pow(PRIME, -1, 2**64)))
    total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(raw * powers, dtype=np.uint64)])
    starts = np.arange(0, len(raw) - length + 1, stride)
    return (total[starts + length] - total[starts]) * inverses[starts]
