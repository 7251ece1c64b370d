"""Generation: with the KV cache against full recomputation, and many texts at once against one."""

import statistics
from functools import partial

import numpy as np
import torch

from helpers import runtime
from helpers.transformer.models import GPT, GPTConfig, generate

LENGTHS, STREAMS, ROUNDS = (32, 64, 128, 256), 32, 5


@torch.inference_mode()
def recompute(model: GPT, prompt: np.ndarray, n_tokens: int) -> np.ndarray:
    """The likeliest continuation without a cache."""
    tokens = torch.from_numpy(prompt)[None]
    for _ in range(n_tokens):
        tokens = torch.cat([tokens, model(tokens)[:, -1:].argmax(-1)], dim=1)
    return tokens[0].numpy()


def ratio(slow, fast) -> float:
    """How often `fast` is done in the time of `slow`, medians of turns."""
    seconds = runtime.take_turns({"slow": slow, "fast": fast}, ROUNDS)
    return statistics.median(seconds["slow"]) / statistics.median(seconds["fast"])


def rows():
    runtime.setup()
    prompt, rng = np.array([1]), np.random.default_rng(0)
    for d_model, n_layer in ((64, 4), (128, 4), (192, 6)):
        model = GPT(GPTConfig(vocab=1024, context=257, n_layer=n_layer, d_model=d_model)).eval()
        ratios = []
        for n in LENGTHS:
            plain = partial(recompute, model, prompt, n)
            cached = partial(generate, model, prompt, n, rng, temperature=0)
            assert np.array_equal(plain(), cached()), "the cache changes what is written"
            ratios.append(ratio(plain, cached))
            yield (f"d_model {d_model}, {n} tokens, recomputation over cache", ratios[-1], "×",
                   "≥ 2" if n == LENGTHS[-1] else "")
        yield (f"d_model {d_model}, ratio at {LENGTHS[-1]} over that at {LENGTHS[0]} tokens",
               ratios[-1] / ratios[0], "×", "≥ 1")
        one = partial(generate, model, prompt, 128, rng)
        many = partial(generate, model, np.ones((STREAMS, 1), int), 128, rng)
        yield (f"d_model {d_model}, {STREAMS} texts at once against one by one",
               STREAMS * ratio(one, many), "×", "≥ 5")
