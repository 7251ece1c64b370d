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
    """Cosine and sine, each (seq, d_head/2), of every position's angles (Su et al. 2021)."""
    pair = torch.arange(0, d_head, 2, device=positions.device)
    angle = positions[:, None] * base ** (-pair / d_head)  # slower and slower
    return angle.cos(), angle.sin()


def rotate(x, turn):
    """Turn each pair of numbers in x (..., seq, d_head) by its position's angle."""
    cos, sin = turn
    a, b = x.chunk(2, dim=-1)  # pair i: number i of the first half, number i of the second
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class CausalSelfAttention(nn.Module):
    """Multi-head causal attention, (batch, seq, d_model) → the same shape."""

    def __init__(self, config):
        super().__init__()
        self.n_head = config.n_head
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x, turn, cache=None):
        batch, seq, _ = x.shape
        qkv = self.qkv(x).view(batch, seq, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)
        (q, k), v = rotate(qkv[:2], turn), qkv[2]  # each (batch, n_head, seq, d_head)
        if cache is not None:
            k, v = cache.append(self, k, v)  # with all earlier keys and values
        y = F.scaled_dot_product_attention(q, k, v, is_causal=seq > 1)
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
    """Raise TypeError or ValueError unless `tokens` can be read from position `start` on."""
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


class KVCache:
    """Keys and values of all tokens read so far, per attention layer."""

    def __init__(self):
        self.kept = {}

    @property
    def length(self) -> int:
        """Number of tokens held."""
        return next(iter(self.kept.values()))[0].shape[-2] if self.kept else 0

    def append(self, layer: nn.Module, k, v):
        """Add the new keys and values of `layer` and return all of them."""
        if layer in self.kept:
            k, v = (torch.cat(pair, dim=-2) for pair in zip(self.kept[layer], (k, v), strict=True))
        self.kept[layer] = k, v
        return k, v


def sample_token(logits, rng, temperature=1.0, top_k=0):
    """Draw one token id from logits (vocab,): p ∝ exp(logits / temperature), or from the top k.

    `temperature` 0 takes the likeliest token; `top_k` 0 keeps all.
    """
    if temperature == 0:
        return int(logits.argmax())
    z = np.asarray(logits, dtype=np.float64) / temperature
    if top_k:
        z[z < np.sort(z)[-min(top_k, len(z))]] = -np.inf
    p = np.exp(z - z.max())
    return int(rng.choice(len(p), p=p / p.sum()))


@torch.no_grad()
def generate(model: GPT, prompt: list[int], n_tokens: int, rng: np.random.Generator,
             temperature: float = 1.0, top_k: int = 0) -> list[int]:
    """Prompt and continuation as token ids; stops at the context's end.

    `temperature` divides the logits (0 = always the likeliest token); `top_k` > 0 keeps only the
    k likeliest. Raises ValueError for an empty prompt.
    """
    if not prompt:
        raise ValueError("expected a prompt of at least one token")
    device, cache, tokens = model.wte.weight.device, KVCache(), list(prompt)
    new = tokens
    for _ in range(min(n_tokens, model.config.context - len(prompt))):
        logits = model(torch.tensor([new], device=device), cache)[0, -1].float().cpu().numpy()
        new = [sample_token(logits, rng, temperature, top_k)]
        tokens += new
    return tokens
