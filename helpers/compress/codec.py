"""A language model as a lossless compressor of text: a range coder driven by its predictions."""

import hashlib
import json
import struct
from dataclasses import asdict

import constriction
import numpy as np
import torch

from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need
from helpers.foundations.tokens import bpe_decode, bpe_encode
from helpers.transformer.attention import KVCache
from helpers.transformer.models import GPT, probabilities

MAGIC, VERSION = b"SLWZ", 1
HEADER = struct.Struct("<4sBHIQI8s8s8s")  # see `compress`
START = 10  # the newline's token: what each stream is taken to follow
CHECK = 8  # bytes of a sha256 that are kept


def _bytes(value):
    """Rule: bytes, of any such type."""
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"expected bytes, got {type(value).__name__}: try text.encode()")
    return bytes(value)


def _model(value):
    """Rule: a model that numpy can read, and whose context has two halves."""
    for w in rules.a(torch.nn.Module)(value).parameters():
        if w.device.type != "cpu" or w.dtype == torch.bfloat16:
            raise ValueError(f"expected a model on the CPU, not in bfloat16; got {w.dtype} on "
                             f"{w.device}: try model.cpu().float()")
    if value.config.context < 2:
        raise ValueError("expected a context of at least 2 tokens")
    return value


def _words(value):
    """Rule: a range coder's words → uint32."""
    return rules.integers(1, 0, 2**32 - 1)(value).astype(np.uint32)


def _pair(value):
    return tuple(rules.each(rules.integer(0))(value))


STREAMS = rules.integer(1, 2**16 - 1)  # rule: their number, as the header holds it
KNOWN = need(lambda model, start: start < model.config.vocab, "a start that the model knows")


@accepts(model=_model, n_streams=STREAMS)
class Predictor:
    """Probabilities of the next token of several streams, from what they have read so far.

    predictor(tokens (n_streams,)) reads one token a stream → (n_streams, vocab) in float64, rows
    sum to 1. When the model's context is full, it reads the last half of it again, and goes on.
    Raises ValueError for tokens that the model does not know, or not one for each stream.
    """

    def __init__(self, model, n_streams):
        self.model, self.context = model, model.config.context
        self.cache = KVCache(self.context)
        self.recent = np.empty((n_streams, 0), dtype=np.int64)

    @accepts(tokens=rules.integers(1, low=0), needs=need(
        lambda self, tokens: len(tokens) == len(self.recent), "a token for each stream"))
    @torch.inference_mode()
    def __call__(self, tokens):
        self.recent = np.hstack([self.recent, tokens[:, None]])[:, -(self.context // 2):]
        new = tokens[:, None]
        if self.cache.length == self.context:
            self.cache, new = KVCache(self.context), self.recent
        logits = self.model(torch.from_numpy(new), self.cache)[:, -1]
        return probabilities(logits.numpy())


@accepts(n_tokens=rules.integer(0), n_streams=rules.integer(1))
def stream_lengths(n_tokens: int, n_streams: int) -> list[int]:
    """Lengths of `n_streams` pieces of a text, the longer ones first (as np.array_split)."""
    return [n_tokens // n_streams + (i < n_tokens % n_streams) for i in range(n_streams)]


@accepts(model=_model, tokens=rules.integers(1, low=0), n_streams=STREAMS, start=rules.integer(0),
         needs=(KNOWN, need(lambda model, tokens: not len(tokens) or
                            tokens.max() < model.config.vocab, "tokens that the model knows")))
def encode_tokens(model, tokens, n_streams, start=START):
    """Words (uint32) of a range coder for `tokens` (n,), and −log₂ p of each token in bits.

    The coder never takes p below 2⁻²⁴: a token that the model holds for less likely costs 24 bits.

    The text is cut into `n_streams` pieces that step through the model together; each is taken to
    follow the token `start`. Raises ValueError for tokens that the model does not know.
    """
    lengths = stream_lengths(len(tokens), n_streams)
    grid = np.full((n_streams, lengths[0]), start, dtype=np.int64)
    inside = np.arange(lengths[0]) < np.array(lengths)[:, None]  # (n_streams, steps)
    grid[inside] = tokens
    coder, bits = constriction.stream.queue.RangeEncoder(), np.zeros(grid.shape)
    family = constriction.stream.model.Categorical(perfect=False)
    predict, read = Predictor(model, n_streams), np.full(n_streams, start)
    for step, here in enumerate(inside.T):
        p, read = predict(read)[here], grid[:, step]
        coder.encode(read[here].astype(np.int32), family, p)
        bits[here, step] = -np.log2(p[np.arange(len(p)), read[here]])
    return coder.get_compressed(), bits[inside]


@accepts(model=_model, words=_words, n_tokens=rules.integer(0), n_streams=STREAMS,
         start=rules.integer(0), needs=KNOWN)
def decode_tokens(model, words, n_tokens, n_streams, start=START):
    """The `n_tokens` tokens that `encode_tokens` coded: the same predictions, in the same order.

    Other words give other tokens, or an AssertionError of the coder; `decompress` tells them apart.
    """
    lengths = stream_lengths(n_tokens, n_streams)
    grid = np.full((n_streams, lengths[0]), start, dtype=np.int64)
    inside = np.arange(lengths[0]) < np.array(lengths)[:, None]
    coder = constriction.stream.queue.RangeDecoder(words)
    family = constriction.stream.model.Categorical(perfect=False)
    predict, read = Predictor(model, n_streams), np.full(n_streams, start)
    for step, here in enumerate(inside.T):
        grid[here, step] = coder.decode(family, predict(read)[here])
        read = grid[:, step]
    return grid[inside]


@accepts(model=_model, merges=rules.each(_pair), text=_bytes, n_streams=STREAMS)
def compress(model: GPT, merges: list[tuple[int, int]], text: bytes, n_streams: int = 64) -> bytes:
    """`text` (any bytes) as a file that `decompress` with the same model turns back, exactly.

    More streams are faster, and cost a little: each begins without context. The file: magic,
    version, streams, tokens, bytes of text, words of payload, 8 bytes each of the sha256 of the
    model, of its arithmetic here (`probe`) and of the text; the payload; 8 bytes of the sha256 of
    all that. Raises TypeError if `text` is not bytes, ValueError for a bad number of streams or a
    model without tokens for all bytes.
    """
    if model.config.vocab < 256 + len(merges):
        raise ValueError(f"the model knows {model.config.vocab} tokens, the tokeniser "
                         f"{256 + len(merges)}")
    tokens = bpe_encode(text, merges)
    words, _ = encode_tokens(model, tokens, n_streams)
    head = HEADER.pack(MAGIC, VERSION, n_streams, len(tokens), len(text), len(words),
                       digest(model, merges), probe(model, n_streams), sha256(text))
    body = head + words.astype("<u4").tobytes()
    return body + sha256(body)


@accepts(model=_model, merges=rules.each(_pair), blob=_bytes)
def decompress(model: GPT, merges: list[tuple[int, int]], blob: bytes) -> bytes:
    """The text that `compress` packed with this model. Raises ValueError, which says what is wrong:

    not such a file, truncated, altered, another model, or a machine that rounds differently.
    """
    if len(blob) < HEADER.size + CHECK or blob[:4] != MAGIC:
        raise ValueError(f"{len(blob)} bytes that begin with {bytes(blob[:4])!r}: expected a file "
                         f"of compress, at least {HEADER.size + CHECK} bytes, beginning {MAGIC!r}")
    (_, version, n_streams, n_tokens, n_bytes, n_words, model_sha, probe_sha,
     text_sha) = HEADER.unpack_from(blob)
    if version != VERSION:
        raise ValueError(f"the file has version {version}: expected {VERSION}")
    if len(blob) != (whole := HEADER.size + 4 * n_words + CHECK):
        raise ValueError(f"{len(blob)} bytes, but the header says {whole}: the file was truncated, "
                         "or altered")
    if sha256(blob[:-CHECK]) != blob[-CHECK:]:
        raise ValueError("the checksum is not that of the bytes: the file was altered")
    if digest(model, merges) != model_sha:
        raise ValueError(f"packed with the model {model_sha.hex()}, this one is "
                         f"{digest(model, merges).hex()}: expected the same weights and merges")
    drifted = ("this machine or version computes other last digits than the one that packed the "
               "text: the same numbers are needed to unpack it")
    if probe(model, n_streams) != probe_sha:
        raise ValueError(drifted)
    words = np.frombuffer(blob[HEADER.size:-CHECK], dtype="<u4").astype(np.uint32)
    try:
        text = bpe_decode(decode_tokens(model, words, n_tokens, n_streams), merges)
    except (AssertionError, ValueError):  # words or tokens that these predictions cannot have made
        raise ValueError(drifted) from None
    if len(text) != n_bytes or sha256(text) != text_sha:
        raise ValueError(drifted)
    return text


@accepts(raw=_bytes)
def sha256(raw: bytes) -> bytes:
    """The first CHECK bytes of the sha256 of `raw`."""
    return hashlib.sha256(raw).digest()[:CHECK]


@accepts(model=_model, merges=rules.each(_pair))
def digest(model: GPT, merges: list[tuple[int, int]]) -> bytes:
    """8 bytes of a sha256 over config, merges and weights: they stand for model and tokeniser."""
    state = model.state_dict()
    told = json.dumps([asdict(model.config), [list(pair) for pair in merges]])
    parts = [told.encode()]
    for name in sorted(state):
        w = state[name].detach().contiguous()
        parts += [f"{name} {w.dtype} {tuple(w.shape)}".encode(), w.numpy().tobytes()]
    return sha256(b"\0".join(parts))


@accepts(model=_model, n_streams=STREAMS)
def probe(model: GPT, n_streams: int) -> bytes:
    """What stands for this machine's arithmetic: 8 bytes of a sha256 over some predictions.

    Fixed tokens, in the shapes that coding uses: single steps, then half a context at once.
    """
    predict, seen = Predictor(model, n_streams), []
    for step in range(4):
        predict.cache.length = predict.context if step == 3 else predict.cache.length
        predict.recent = np.resize(np.arange(256), (n_streams, predict.context // 2 - (step < 3)))
        seen.append(predict((np.arange(n_streams) * 7 + step) % 256).tobytes())
    return sha256(b"".join(seen))
