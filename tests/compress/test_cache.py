"""The quantised KV cache gives back what PyTorch's holds, nearly."""

import numpy as np
import pytest
import torch

from helpers.compress import cache
from helpers.transformer.models import GPT, GPTConfig, KVCache

TOKENS = np.random.default_rng(0).integers(64, size=(3, 17))


@pytest.fixture(scope="module")
def model():
    made = GPT(GPTConfig(vocab=64, context=24, n_layer=2, n_head=2, d_model=32), seed=1)
    with torch.no_grad():
        made.wte.weight.mul_(20)  # as after training: logits that differ
    return made


@torch.no_grad()
def logits(model, kept=None):
    return model(torch.from_numpy(TOKENS), kept).numpy()


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("n_bits", [2, 3, 4, 8])
def test_a_cache_fed_token_by_token_equals_one_fed_at_once(model, n_bits, fixed):
    grids = cache.head_grids(model, TOKENS, n_bits) if fixed else None
    at_once = logits(model, cache.QuantizedCache(24, n_bits, grids))
    slow, tokens = cache.QuantizedCache(24, n_bits, grids), torch.from_numpy(TOKENS)
    with torch.no_grad():
        one_by_one = torch.cat([model(tokens[:, t:t + 1], slow) for t in range(17)], dim=1)
    assert slow.length == 17
    assert np.abs(one_by_one.numpy() - at_once).max() < 1e-3 * np.abs(at_once).max()


@pytest.mark.parametrize("n_bits", [2, 3, 4, 8])
def test_the_cache_takes_the_bytes_of_its_codes_and_scales(model, n_bits):
    kept = cache.QuantizedCache(24, n_bits)
    logits(model, kept)
    values = 2 * 2 * 3 * 17 * 32  # layers, keys and values, texts, tokens, d_model
    assert kept.n_bytes() == values * n_bits // 8 + values // 16 * 3
    fixed = cache.QuantizedCache(24, n_bits, cache.head_grids(model, TOKENS, n_bits))
    logits(model, fixed)
    assert fixed.n_bytes() == values * n_bits // 8


def test_fewer_bits_move_the_logits_further(model):
    true, errors = logits(model, KVCache(24)), []
    for n_bits in (8, 4, 2):
        errors.append(np.abs(logits(model, cache.QuantizedCache(24, n_bits)) - true).mean())
    assert errors[0] < errors[1] < errors[2]
    examined = cache.Cached(model, lambda: cache.QuantizedCache(24, 8))
    with torch.no_grad():
        assert np.abs(examined(torch.from_numpy(TOKENS)).numpy() - true).mean() == errors[0]


def test_what_the_cache_cannot_hold_is_refused(model):
    tokens = torch.from_numpy(TOKENS)
    with pytest.raises(ValueError, match="17 tokens are longer than the cache's context of 16"):
        logits(model, cache.QuantizedCache(16, 4))
    narrow = GPT(GPTConfig(vocab=64, context=24, n_layer=1, n_head=2, d_model=12))
    with pytest.raises(ValueError, match="3 bits whole bytes"):
        logits(narrow, cache.QuantizedCache(24, 3))
    kept = cache.QuantizedCache(24, 4)
    logits(model, kept)
    for other, batch in ((model, 2), (GPT(model.config), 3)):
        with pytest.raises(ValueError, match="or a new cache"):
            other(tokens[:batch, :1], kept)
    grids = cache.head_grids(narrow, TOKENS, 4)
    with pytest.raises(ValueError, match="expected head_grids of this one"):
        logits(model, cache.QuantizedCache(24, 4, grids))
    with pytest.raises(ValueError, match="n_bits"):
        cache.QuantizedCache(24, 9)


@pytest.mark.parametrize("windows", [[[1, 64, 3]], [[1, -1, 3]], [[1]], np.ones((2, 30), int)])
def test_windows_that_the_model_cannot_read_give_no_grids(model, windows):
    with pytest.raises(ValueError, match="expected"):
        cache.head_grids(model, windows, 4)
