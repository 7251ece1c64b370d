"""Tokens per second of a training step against a plain fp32 module and loop of the same shape.

The plain side is written here, in the manner of nanoGPT: learnt positions, fused qkv product,
torch's attention, fused AdamW. Both sides take turns (A B A B) in this process, on one thread.
"""

import statistics

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from helpers import data, runtime
from helpers.transformer import models, steps, training
from helpers.transformer.flops import flops_per_token
from helpers.transformer.models import GPT, GPTConfig

BATCH, SEQ, ROUNDS = 16, 128, 7
SHAPES = [GPTConfig(n_layer=n_layer, n_head=n_head, d_model=d_model)  # and the least ratio
          for d_model, n_layer, n_head in ((16, 2, 2), (32, 2, 2), (64, 4, 4), (128, 4, 4),
                                           (192, 4, 6))]
BOUNDS = {16: 1.2, 32: 1.2, 64: 1.3, 128: 1.6, 192: 1.6}
PARITY = {16: 400, 64: 250}  # steps of the runs whose losses are compared
SEEDS = (0, 1, 2)


class PlainAttention(nn.Module):
    """Causal attention as nanoGPT writes it."""

    def __init__(self, config):
        super().__init__()
        self.n_head, self.d_model = config.n_head, config.d_model
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=False)
        self.proj = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x):
        batch, seq, d_model = x.shape
        q, k, v = (part.view(batch, seq, self.n_head, d_model // self.n_head).transpose(1, 2)
                   for part in self.qkv(x).split(self.d_model, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).contiguous().view(batch, seq, d_model))


class PlainBlock(nn.Module):
    """Pre-norm block."""

    def __init__(self, config):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.d_model, bias=False)
        self.attn = PlainAttention(config)
        self.norm2 = nn.LayerNorm(config.d_model, bias=False)
        self.mlp = nn.Sequential(nn.Linear(config.d_model, 4 * config.d_model, bias=False),
                                 nn.GELU(),
                                 nn.Linear(4 * config.d_model, config.d_model, bias=False))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PlainGPT(nn.Module):
    """Learnt token and position embeddings, blocks, tied head."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab, config.d_model)
        self.wpe = nn.Embedding(config.context, config.d_model)
        self.blocks = nn.Sequential(*(PlainBlock(config) for _ in range(config.n_layer)))
        self.norm = nn.LayerNorm(config.d_model, bias=False)

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        return F.linear(self.norm(self.blocks(x)), self.wte.weight)


def step_of(model, low: bool, own_attention: bool, own_loss: bool):
    """A function that takes one step, with the given parts of the course's core."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.0, fused=True)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (BATCH, SEQ + 1)))
    for block in model.blocks if own_attention or low else ():
        if isinstance(model, GPT):
            block.attn.mix = steps.fast_attention if own_attention else float32_attention
    loss_of = steps.token_loss if own_loss else F.cross_entropy

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits = model(tokens[:, :-1])
        loss = loss_of(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def float32_attention(q, k, v, is_causal):
    """Torch's attention, left out of autocast: its bfloat16 backward pass is slow on a CPU."""
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q, k, v.float(), is_causal=is_causal)


def losses(shape: GPTConfig, fast: bool, n_steps: int) -> np.ndarray:
    """Validation losses of one run per seed: the course's core, or the same model in plain fp32."""
    train_docs, held_out = data.split_documents(data.prose())
    tokens, found = data.encode(train_docs), []
    validation = data.windows(data.encode(held_out), 200, SEQ)
    for seed in SEEDS:
        config = training.TrainConfig(lr=3e-3, n_steps=n_steps, batch_size=BATCH, seed=seed,
                                      dtype="bfloat16" if fast else "float32")
        record, _ = training.train(models.GPT(shape, seed),
                                   data.TokenBatches(tokens, BATCH, SEQ, seed), config, validation)
        found.append(record.loss)
    return np.array(found)


def rows():
    runtime.setup()
    device = torch.device("cpu")
    peak = runtime.peak_flops(device, repeats=30)
    yield "fp32 matmul peak, one thread", peak / 1e9, "GF/s", ""
    if runtime.fast_dtype(device) == "float32":
        raise SystemExit("this CPU multiplies bfloat16 no faster: the ratios would be about 1")
    for shape in SHAPES:
        jobs = {"plain fp32 module and loop": step_of(PlainGPT(shape), False, False, False),
                "the course's module, fp32": step_of(GPT(shape), False, False, False),
                "+ bf16 products, attention fp32": step_of(GPT(shape), True, False, False),
                "+ attention with its own gradient": step_of(GPT(shape), True, True, False),
                "+ cross-entropy with its own gradient": step_of(GPT(shape), True, True, True)}
        found = {name: statistics.median(seconds) for name, seconds
                 in runtime.take_turns(jobs, ROUNDS, least=0.4).items()}
        plain, *_, whole = found.values()
        for name, seconds in list(found.items())[1:]:
            bound = f"≥ {BOUNDS[shape.d_model]}" if seconds is whole else ""
            yield f"d_model {shape.d_model}, {name}", plain / seconds, "×", bound
        rate = BATCH * SEQ * flops_per_token(shape, SEQ) / whole
        yield (f"d_model {shape.d_model}, exact training FLOPs over the fp32 peak",
               100 * rate / peak, "%", "≥ 30" if shape.d_model >= 128 else "")
    for shape in SHAPES:
        if n_steps := PARITY.get(shape.d_model):
            plain, fast = (losses(shape, which, n_steps) for which in (False, True))
            spread = max(plain.std(ddof=1), fast.std(ddof=1))
            yield (f"d_model {shape.d_model}, {n_steps} steps, fp32 loss, mean of {len(SEEDS)}",
                   plain.mean(), "nat", "")
            yield (f"d_model {shape.d_model}, seeds' standard deviation", 1e3 * spread, "mnat", "")
            yield (f"d_model {shape.d_model}, fast core above fp32, in those deviations",
                   (fast - plain).mean() / spread, "σ", "≤ 1")
