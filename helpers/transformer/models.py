"""The course's GPT: rotary positions, pre-norm blocks, tied head; KV cache and sampling."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class GPTConfig:
    """Shape of a GPT. Raises ValueError if d_model is not an even multiple of n_head."""

    vocab: int = 256  # number of token ids: 256 for bytes
    context: int = 128  # longest sequence the model can read
    n_layer: int = 4
    n_head: int = 4
    d_model: int = 64  # width of the residual stream

    def __post_init__(self):
        if self.d_model % (2 * self.n_head):
            raise ValueError(f"d_model={self.d_model} is not an even multiple of "
                             f"n_head={self.n_head}: heads need an even, equal width")


def attention(q, k, v):
    """Causal attention by the formula: q, k, v (..., seq, d_head) → the mix, and its weights.

    Weights have shape (..., seq, seq), rows sum to 1 (Vaswani et al. 2017, eq. 1).
    """
    seq, d_head = q.shape[-2:]
    scores = q @ k.transpose(-2, -1) / sqrt(d_head)  # (..., seq, seq)
    future = torch.ones(seq, seq, dtype=torch.bool, device=q.device).triu(1)
    weights = scores.masked_fill(future, float("-inf")).softmax(-1)
    return weights @ v, weights


def rotation(positions, d_head, base=1000.0):
    """Each position's angles as complex numbers of length 1, (seq, d_head/2) (Su et al. 2021)."""
    pair = torch.arange(0, d_head, 2, device=positions.device)
    angle = positions[:, None] * base ** (-pair / d_head)  # slower and slower
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x, turn):
    """Turn each pair of neighbours in x (..., seq, d_head) by its position's angle.

    In float32 if x is bfloat16: complex numbers are no coarser.
    """
    x = x.float() if x.dtype == torch.bfloat16 else x
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))  # (..., seq, d_head/2)
    return torch.view_as_real(pairs * turn).flatten(-2)


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
    if tokens.device.type == "cpu" and tokens.numel() and not torch.compiler.is_compiling():
        low, high = (int(end) for end in torch.aminmax(tokens))
        if low < 0 or high >= config.vocab:
            raise ValueError(f"token ids from {low} to {high}: expected 0 … {config.vocab - 1}")


class KVCache:
    """Keys and values of all tokens read so far, per attention layer, in room for `context`."""

    def __init__(self, context: int):
        self.context, self.length, self.kept = context, 0, {}

    def append(self, layer: nn.Module, k, v):
        """Add the new keys and values of `layer`, (batch, n_head, seq, d_head); return all."""
        start, end = self.length, self.length + k.shape[2]
        if layer not in self.kept:
            room = (*k.shape[:2], self.context, k.shape[3])
            self.kept[layer] = k.new_empty(room), v.new_empty(room)
        for kept, new in zip(self.kept[layer], (k, v), strict=True):
            kept[:, :, start:end] = new
        return tuple(kept[:, :, :end] for kept in self.kept[layer])


def probabilities(logits, temperature=1.0, top_k=0, top_p=1.0):
    """Next token's distribution, (..., vocab): p ∝ exp(logits / temperature), cut and rescaled.

    `top_k` > 0 keeps the k likeliest tokens; `top_p` keeps the likeliest until their sum reaches
    it, the one that crosses it included (Holtzman et al. 2020).
    """
    z = np.asarray(logits, dtype=np.float64) / temperature
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    if not top_k and top_p >= 1:
        return p
    order = np.argsort(-p, axis=-1, kind="stable")  # likeliest first
    ranked = np.take_along_axis(p, order, axis=-1)
    before = np.cumsum(ranked, axis=-1) - ranked  # what the likelier ones hold
    keep = (before < top_p) & (np.arange(p.shape[-1]) < (top_k or p.shape[-1]))
    np.put_along_axis(p, order, np.where(keep, ranked, 0), axis=-1)
    return p / p.sum(axis=-1, keepdims=True)


def sample_tokens(logits, rng, temperature=1.0, top_k=0, top_p=1.0):
    """Draw one token id for each row of logits (..., vocab); temperature 0 takes the likeliest."""
    if temperature == 0:
        return np.asarray(logits).argmax(axis=-1)
    p = probabilities(logits, temperature, top_k, top_p)
    u = rng.random(p.shape[:-1])[..., None]  # where u falls among the cumulated shares
    return np.minimum((np.cumsum(p, axis=-1) <= u).sum(axis=-1), p.shape[-1] - 1)


@torch.inference_mode()
def generate(model: GPT, prompt, n_tokens: int, rng: np.random.Generator,
             temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> np.ndarray:
    """Prompt and continuation: token ids (seq,) or, for several texts at once, (batch, seq).

    Stops at the context's end. The choices are those of `sample_tokens`. Raises ValueError for an
    empty prompt or prompts of unequal lengths.
    """
    tokens = np.atleast_2d(np.asarray(prompt, dtype=np.int64))
    if not tokens.size:
        raise ValueError("expected a prompt of at least one token")
    context = model.config.context
    device, cache, new = model.wte.weight.device, KVCache(context), tokens
    for _ in range(min(n_tokens, context - tokens.shape[1])):
        logits = model(torch.from_numpy(new).to(device), cache)[:, -1].float().cpu().numpy()
        new = sample_tokens(logits, rng, temperature, top_k, top_p)[:, None]
        tokens = np.concatenate([tokens, new], axis=1)
    return tokens if np.ndim(prompt) == 2 else tokens[0]
