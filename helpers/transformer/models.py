"""The course's GPT: pre-norm blocks with rotary attention, tied head; and sampling from it."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need
from helpers.transformer.attention import KVCache, rotate, rotation


@accepts(vocab=rules.integer(1), context=rules.integer(1), n_layer=rules.integer(1),
         n_head=rules.integer(1), d_model=rules.integer(1))
@dataclass(frozen=True)
class GPTConfig:
    """Shape of a GPT, integers of any type taken as Python's own.

    Raises ValueError if one is not positive or d_model is not an even multiple of n_head,
    TypeError if one is no integer.
    """

    vocab: int = 256  # number of token ids: 256 for bytes
    context: int = 128  # longest sequence the model can read
    n_layer: int = 4
    n_head: int = 4
    d_model: int = 64  # width of the residual stream

    def __post_init__(self):
        if self.d_model % (2 * self.n_head):
            raise ValueError(f"d_model={self.d_model} is not an even multiple of "
                             f"n_head={self.n_head}: heads need an even, equal width")


@accepts(config=rules.a(GPTConfig))
class CausalSelfAttention(nn.Module):
    """Multi-head causal attention, (batch, seq, d_model) → the same shape."""

    def __init__(self, config):
        super().__init__()
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)
        self.mix = F.scaled_dot_product_attention  # chapter 07 puts a faster one here

    def forward(self, x, turn, cache=None):
        batch, seq, _ = x.shape
        qkv = self.qkv(x).view(batch, seq, 3, self.n_head, -1).transpose(1, 3)
        q, k, v = qkv.unbind(2)  # each (batch, n_head, seq, d_head)
        q, k = rotate(q, turn), rotate(k, turn)
        if cache is not None:
            k, v = cache.append(self, k, v)  # with all earlier keys and values
        y = self.mix(q, k, v, is_causal=seq > 1)
        return self.out(y.transpose(1, 2).reshape(batch, seq, -1))


@accepts(config=rules.a(GPTConfig))
class Block(nn.Module):
    """A pre-norm transformer block, (batch, seq, d_model) → the same shape."""

    def __init__(self, config):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.d_model, bias=False)
        self.attn = CausalSelfAttention(config)
        self.norm2 = nn.LayerNorm(config.d_model, bias=False)
        self.up = nn.Linear(config.d_model, 4 * config.d_model, bias=False)
        self.down = nn.Linear(4 * config.d_model, config.d_model, bias=False)

    def forward(self, x, turn, cache=None):
        x = x + self.attn(self.norm1(x), turn, cache)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


@accepts(config=rules.a(GPTConfig), seed=rules.integer(0))
class GPT(nn.Module):
    """Integer tokens (batch, seq) → logits of the next token (batch, seq, vocab).

    Raises TypeError or ValueError for tokens it cannot read (see `check_tokens`).
    """

    def __init__(self, config, seed=0):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab, config.d_model)  # token embedding, also the head
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.d_model, bias=False)
        init_weights(self, seed)

    def forward(self, tokens, cache=None):
        start = 0 if cache is None else cache.length
        check_tokens(tokens, start, self.config)
        positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        turn = rotation(positions, self.config.d_model // self.config.n_head)
        x = self.wte(tokens)  # (batch, seq, d_model)
        for block in self.blocks:
            x = block(x, turn, cache)
        if cache is not None:
            cache.length += tokens.shape[1]
        return F.linear(self.norm(x), self.wte.weight)  # logits: (batch, seq, vocab)


def a_gpt(value):
    """Rule: a GPT, this one or one written like it."""
    if not isinstance(getattr(value, "config", None), GPTConfig):
        raise TypeError(f"expected a GPT with its config, got {type(value).__name__}")
    return value


def plain_gpt(value):
    """Rule: a GPT, out of `torch.compile`'s wrapper if it is in one."""
    return a_gpt(getattr(value, "_orig_mod", value))


@accepts(model=a_gpt, seed=rules.integer(0))
def init_weights(model: GPT, seed: int) -> None:
    """Draw all weights from numpy's generator, the same on every machine and thread count.

    Embedding: std 0.02. Matrices: std 1/√d_in, so that signals keep their size; the two that
    write into the residual stream are divided by √(2 n_layer) more. Norm gains stay 1.
    """
    rng = np.random.default_rng(seed)
    for name, p in model.named_parameters():
        if p.ndim == 2:
            std = 0.02 if name == "wte.weight" else p.shape[1] ** -0.5
            if name.endswith(("out.weight", "down.weight")):
                std /= sqrt(2 * model.config.n_layer)
            p.data.copy_(torch.from_numpy(rng.normal(0.0, std, p.shape).astype(np.float32)))


@accepts(tokens=rules.a(torch.Tensor), start=rules.integer(0), config=rules.a(GPTConfig))
def check_tokens(tokens: torch.Tensor, start: int, config: GPTConfig) -> None:
    """Raise TypeError or ValueError unless `tokens` can be read from position `start` on.

    Ids are looked at on a CPU alone: elsewhere each look would wait for the device.
    """
    if tokens.dtype not in (torch.int64, torch.int32) or tokens.ndim != 2:
        raise TypeError(
            f"expected integer tokens of shape (batch, seq), got {tokens.dtype} of shape "
            f"{tuple(tokens.shape)}"
        )
    if start + tokens.shape[1] > config.context:
        raise ValueError(
            f"{start + tokens.shape[1]} tokens are longer than the context of {config.context}"
        )
    if start and tokens.shape[1] > 1:
        raise ValueError("a filled cache takes one new token at a time")
    _check_ids(tokens, config.vocab)


def _check_ids(ids: torch.Tensor, vocab: int) -> None:
    if ids.device.type == "cpu" and ids.numel() and not torch.compiler.is_compiling():
        low, high = (int(end) for end in torch.aminmax(ids))
        if low < 0 or high >= vocab:
            raise ValueError(f"token ids from {low} to {high}: expected 0 … {vocab - 1}")


def _logits(values):
    """Rule: scores (..., vocab), −∞ for what cannot come; the largest of each row is finite."""
    known = isinstance(values, np.ndarray) and values.dtype.kind == "f"
    z = values if known else rules.reals(finite=False)(values)
    if not z.ndim or not z.size or not np.isfinite(z.max(axis=-1)).all():  # the max passes NaN on
        raise ValueError("expected logits (..., vocab) without NaN, the largest of each row finite")
    return z


@accepts(logits=_logits, temperature=rules.number(above=0), top_k=rules.integer(0),
         top_p=rules.number(0, 1))
def probabilities(logits, temperature=1.0, top_k=0, top_p=1.0):
    """Next token's distribution, (..., vocab): p ∝ exp(logits / temperature), cut and rescaled.

    `top_k` > 0 keeps the k likeliest tokens; `top_p` keeps the likeliest until their sum reaches
    it, the one that crosses it included (Holtzman et al. 2020); the likeliest always stays. A logit
    of −∞ has probability 0. Raises ValueError for NaN, a row without a finite largest logit, a
    temperature that is not positive, a negative top_k, or a top_p outside 0 … 1.
    """
    z = np.asarray(logits, dtype=np.float64)
    with np.errstate(over="ignore"):  # far below the largest at a low temperature: −∞, p = 0
        p = np.exp((z - z.max(axis=-1, keepdims=True)) / temperature)
    p /= p.sum(axis=-1, keepdims=True)
    if not top_k and top_p >= 1:
        return p
    order = np.argsort(-p, axis=-1, kind="stable")  # likeliest first
    ranked = np.take_along_axis(p, order, axis=-1)
    before = np.cumsum(ranked, axis=-1) - ranked  # what the likelier ones hold
    keep = (before < top_p) & (np.arange(p.shape[-1]) < (top_k or p.shape[-1]))
    keep[..., 0] = True  # the likeliest stays, whatever top_p
    np.put_along_axis(p, order, np.where(keep, ranked, 0), axis=-1)
    return p / p.sum(axis=-1, keepdims=True)


@accepts(logits=_logits, rng=rules.maybe(rules.a(np.random.Generator)),
         temperature=rules.number(0), top_k=rules.integer(0), top_p=rules.number(0, 1),
         needs=need(lambda rng, temperature: rng is not None or temperature == 0,
                    "a numpy generator, unless the temperature is 0"))
def sample_tokens(logits, rng, temperature=1.0, top_k=0, top_p=1.0):
    """Draw one token id for each row of logits (..., vocab); temperature 0 takes the likeliest.

    Raises what `probabilities` raises, and ValueError without a generator to draw from.
    """
    if temperature == 0:
        return np.asarray(logits).argmax(axis=-1)
    p = probabilities(logits, temperature, top_k, top_p)
    u = rng.random(p.shape[:-1])[..., None]  # where u falls among the cumulated shares
    return np.minimum((np.cumsum(p, axis=-1) <= u).sum(axis=-1), p.shape[-1] - 1)


@accepts(model=a_gpt, prompt=rules.integers((1, 2), 0), n_tokens=rules.integer(0),
         rng=rules.maybe(rules.a(np.random.Generator)), temperature=rules.number(0),
         top_k=rules.integer(0), top_p=rules.number(0, 1))
@torch.inference_mode()
def generate(model: GPT, prompt, n_tokens: int, rng: np.random.Generator,
             temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> np.ndarray:
    """Prompt and continuation: token ids (seq,) or, for several texts at once, (batch, seq).

    Stops at the context's end, with fewer than `n_tokens` new ones. The choices are those of
    `sample_tokens`. Raises ValueError for an empty prompt, prompts of unequal lengths, ids outside
    the vocabulary, or a prompt that leaves no room in the context.
    """
    tokens, context = np.atleast_2d(prompt), model.config.context
    if not tokens.size:
        raise ValueError("expected a prompt of at least one token")
    check_tokens(torch.from_numpy(tokens), 0, model.config)
    if n_tokens and tokens.shape[1] == context:
        raise ValueError(f"the prompt fills the context of {context}: expected at most "
                         f"{context - 1} tokens, so that one more can be written")
    device, cache, new = model.wte.weight.device, KVCache(context), tokens
    for _ in range(min(n_tokens, context - tokens.shape[1])):
        logits = model(torch.from_numpy(new).to(device), cache)[:, -1].float().cpu().numpy()
        new = sample_tokens(logits, rng, temperature, top_k, top_p)[:, None]
        tokens = np.concatenate([tokens, new], axis=1)
    return tokens if np.ndim(prompt) == 2 else tokens[0]
