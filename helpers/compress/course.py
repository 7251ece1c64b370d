"""The course's trained models with their tokeniser, and the text they are examined on."""

import json
from pathlib import Path

import numpy as np

from helpers import checkpoints, corpora
from helpers.models import GPT
from helpers.text import bpe_encode


def load_model(path: str | Path) -> tuple[GPT, list[tuple[int, int]]]:
    """A model and its tokeniser's merges, both from one file.

    Raises ValueError if the file is foreign or altered, or holds no merges.
    """
    facts = checkpoints.header(path)
    if "merges" not in facts:
        raise ValueError(f"{path} holds no merges: expected a file of tools/family.py")
    return checkpoints.load_model(path), [tuple(pair) for pair in json.loads(facts["merges"])]


def load_text(merges: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, float]:
    """Tokens to train on, held-out tokens, and held-out tokens per byte.

    The text is `corpora`'s prose: no training document shares passages with a held-out one.
    """
    train, held_out = (bytes(tokens) for tokens in corpora.load("prose"))
    tokens = bpe_encode(held_out, merges)
    return bpe_encode(train, merges), tokens, len(tokens) / len(held_out)
