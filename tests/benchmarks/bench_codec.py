"""The model as a compressor: speed both ways, and how near the file is to its cross-entropy."""

import statistics
from functools import partial

import numpy as np

from helpers import corpora, data, runtime
from helpers.compress import codec
from helpers.foundations.tokens import bpe_encode
from helpers.transformer import checkpoints

N_BYTES, ROUNDS = 50_000, 3


def rows():
    runtime.setup()
    text = bytes(corpora.load("prose")[1])[:N_BYTES]
    for name, bound in (("gpt_small", "≥ 5"), ("gpt_prose", "")):
        model, merges = checkpoints.load_tokenised(data.path(f"models/{name}.safetensors"))
        packed = codec.compress(model, merges, text)
        assert codec.decompress(model, merges, packed) == text, "the text does not come back"
        seconds = runtime.take_turns({
            "packing": partial(codec.compress, model, merges, text),
            "unpacking": partial(codec.decompress, model, merges, packed)}, ROUNDS)
        for way, times in seconds.items():
            yield f"{name}, {way}", N_BYTES / 1e3 / statistics.median(times), "kB/s", bound
        _, bits = codec.encode_tokens(model, bpe_encode(text, merges), 64)
        excess = 100 * (8 * len(packed) / np.sum(bits) - 1)
        yield f"{name}, file of {N_BYTES} bytes above its cross-entropy", excess, "%", ""
        words = 100 * (8 * (len(packed) - codec.HEADER.size - codec.CHECK) / np.sum(bits) - 1)
        yield f"{name}, the coder's words above it", words, "%", "≤ 0.5"
