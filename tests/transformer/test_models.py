"""The GPT against formulas, torch's own kernels and its own full recomputation; exact counts."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from helpers.transformer import attention, models
from helpers.transformer.flops import flops_per_token, n_params
from helpers.transformer.models import GPT, GPTConfig, KVCache

TINY = GPTConfig(vocab=32, context=16, n_layer=2, n_head=2, d_model=16)
SHAPES = [TINY, GPTConfig(vocab=11, context=8, n_layer=1, n_head=1, d_model=8),
          GPTConfig(vocab=256, context=24, n_layer=3, n_head=4, d_model=32)]
every_shape = pytest.mark.parametrize("config", SHAPES, ids=lambda c: f"d{c.d_model}")


@pytest.fixture
def model():
    """Weights ten times the usual, so that a wrong mix shows itself."""
    model = GPT(TINY)
    with torch.no_grad():
        model.wte.weight *= 10
    return model.eval()


@pytest.fixture
def tokens():
    drawn = np.random.default_rng(0).integers(TINY.vocab, size=(3, TINY.context))
    return torch.from_numpy(drawn)


@torch.no_grad()
@pytest.mark.parametrize("changed", [1, 7, 15])
def test_no_logit_depends_on_a_later_token(model, tokens, changed):
    other = tokens.clone()
    other[:, changed] = (other[:, changed] + 1) % TINY.vocab
    before, after = model(tokens), model(other)
    assert torch.allclose(before[:, :changed], after[:, :changed], atol=1e-6)
    assert ((before - after)[:, changed:].abs().amax(-1) > 1e-5).all()


@torch.no_grad()
def test_no_window_depends_on_another_of_its_batch(model, tokens):
    alone = torch.cat([model(row[None]) for row in tokens])
    assert torch.allclose(alone, model(tokens), atol=1e-5)


def heads(*shape):
    drawn = np.random.default_rng(1).normal(size=(3, *shape))
    return torch.from_numpy(drawn).unbind()


@pytest.mark.parametrize("shape", [(16, 8), (2, 3, 5, 4), (1, 1, 1, 2)])
def test_attention_equals_torch_and_its_weights_are_causal_shares(shape):
    q, k, v = heads(*shape)
    mix, weights = attention.attention(q, k, v)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert torch.allclose(mix, expected, rtol=0, atol=1e-12)
    assert torch.allclose(weights.sum(-1), torch.ones(shape[:-1], dtype=q.dtype))
    assert (weights.triu(1) == 0).all()


@torch.no_grad()
def test_the_model_mixes_by_the_formula(model, tokens, monkeypatch):
    fast = model(tokens)
    for block in model.blocks:
        monkeypatch.setattr(block.attn, "mix",
                            lambda q, k, v, is_causal: attention.attention(q, k, v)[0])
    assert torch.allclose(model(tokens), fast, atol=1e-5)


def test_a_rotated_product_depends_on_the_distance_alone():
    q, k, _ = heads(1, 8)
    q, k = q.float(), k.float()

    def product(m, n):
        turned = [attention.rotate(x, attention.rotation(torch.tensor([at]), 8))
                  for x, at in ((q, m), (k, n))]
        return (turned[0] * turned[1]).sum().item()

    for m, n in ((5, 3), (12, 2), (0, 9)):
        for shift in (1, 20, 100):
            assert product(m + shift, n + shift) == pytest.approx(product(m, n), abs=1e-4)
    assert abs(product(5, 3) - product(6, 3)) > 1e-2


def test_rotation_keeps_lengths_and_leaves_the_first_position():
    x = heads(16, 8)[0].float()
    turned = attention.rotate(x, attention.rotation(torch.arange(16), 8))
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    assert torch.equal(turned[0], x[0])
    assert not torch.allclose(turned[1:], x[1:], atol=0.1)


@torch.no_grad()
@pytest.mark.parametrize("n_prompt", [1, 5])
def test_cached_logits_equal_full_recomputation_token_by_token(model, tokens, n_prompt):
    cache, full = KVCache(TINY.context), model(tokens)
    assert cache.length == 0
    read = model(tokens[:, :n_prompt], cache)
    assert torch.allclose(read, full[:, :n_prompt], atol=1e-5)
    for at in range(n_prompt, TINY.context):
        assert cache.length == at
        step = model(tokens[:, at : at + 1], cache)
        assert torch.allclose(step[:, 0], full[:, at], atol=1e-5)


CHOICES = [{"temperature": 0}, {"temperature": 0.8, "top_k": 5}, {"top_p": 0.7}, {}]


@torch.no_grad()
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("prompt", [[3, 1, 4], [[3, 1, 4], [1, 5, 9]]], ids=["one", "two"])
def test_generation_with_the_cache_equals_full_recomputation(model, choice, prompt):
    generated = models.generate(model, prompt, 10, np.random.default_rng(0), **choice)
    rng, expected = np.random.default_rng(0), np.atleast_2d(prompt)
    for _ in range(10):
        logits = model(torch.from_numpy(expected))[:, -1].numpy()
        new = models.sample_tokens(logits, rng, **choice)
        expected = np.concatenate([expected, new[:, None]], axis=1)
    assert generated.shape == (*np.shape(prompt)[:-1], 13)
    assert np.array_equal(np.atleast_2d(generated), expected)


@torch.no_grad()
def test_texts_continued_together_are_those_continued_alone(model):
    prompts = np.random.default_rng(1).integers(TINY.vocab, size=(5, 4))
    together = models.generate(model, prompts, 8, None, temperature=0)
    for row, prompt in zip(together, prompts, strict=True):
        assert np.array_equal(row, models.generate(model, prompt, 8, None, temperature=0))


def test_generation_stops_at_the_context_and_keeps_the_prompt(model):
    rng, prompt = np.random.default_rng(0), [1, 2, 3]
    assert len(models.generate(model, prompt, 100, rng)) == TINY.context
    assert models.generate(model, prompt, 0, rng).tolist() == prompt
    assert prompt == [1, 2, 3]
    full = list(range(TINY.context))
    assert models.generate(model, full, 0, rng).tolist() == full
    with pytest.raises(ValueError, match="the prompt fills the context of 16: expected at most 15"):
        models.generate(model, full, 5, rng)
    with pytest.raises(ValueError, match="17 tokens are longer than the context of 16"):
        models.generate(model, [*full, 0], 5, rng)
    assert len(models.generate(model, full[:-1], 5, rng)) == TINY.context


@pytest.mark.parametrize("empty", [[], [[]]])
def test_an_empty_prompt_is_refused(model, empty):
    with pytest.raises(ValueError, match="a prompt of at least one token"):
        models.generate(model, empty, 5, np.random.default_rng(0))


def test_prompts_of_unequal_lengths_are_refused(model):
    with pytest.raises(ValueError, match="rows of unequal length"):
        models.generate(model, [[1, 2], [3]], 5, np.random.default_rng(0))


@pytest.mark.parametrize(("wrong", "error", "message"), [
    (torch.zeros(2, 4), TypeError, r"integer tokens.*got torch\.float32 of shape \(2, 4\)"),
    (torch.zeros(2, 4, dtype=torch.uint8), TypeError, r"got torch\.uint8"),
    (torch.zeros(4, dtype=torch.int64), TypeError, r"\(batch, seq\), got.*of shape \(4,\)"),
    (torch.zeros(1, 2, 4, dtype=torch.int64), TypeError, r"of shape \(1, 2, 4\)"),
    (torch.zeros(2, 17, dtype=torch.int64), ValueError, "17 tokens .* the context of 16"),
    (torch.full((2, 4), float("nan")), TypeError, r"got torch\.float32"),
    (torch.full((2, 4), 32), ValueError, "token ids from 32 to 32: expected 0 … 31"),
    (torch.tensor([[5, -1]]), ValueError, "token ids from -1 to 5: expected 0 … 31"),
])
def test_tokens_that_cannot_be_read_are_refused(model, wrong, error, message):
    with pytest.raises(error, match=message):
        model(wrong)


@torch.no_grad()
def test_a_filled_cache_takes_one_token_and_no_more_than_the_context(model, tokens):
    cache = KVCache(TINY.context)
    model(tokens[:, :4], cache)
    with pytest.raises(ValueError, match="takes one new token at a time"):
        model(tokens[:, 4:6], cache)
    model(tokens, cache := KVCache(TINY.context))
    with pytest.raises(ValueError, match="17 tokens are longer than the context of 16"):
        model(tokens[:, :1], cache)


@torch.no_grad()
def test_both_integer_types_are_read(model, tokens):
    assert torch.equal(model(tokens), model(tokens.int()))


@pytest.mark.parametrize(("d_model", "n_head"), [(10, 3), (12, 4), (15, 1)])
def test_heads_of_odd_or_unequal_width_are_refused(d_model, n_head):
    with pytest.raises(ValueError, match=f"d_model={d_model} is not an even multiple of "
                                         f"n_head={n_head}"):
        GPTConfig(d_model=d_model, n_head=n_head)


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TINY.d_model = 32


def test_weights_depend_on_the_seed_alone():
    first = GPT(TINY, seed=1).state_dict()
    torch.rand(7)  # torch's own generator plays no part
    again, other = GPT(TINY, seed=1).state_dict(), GPT(TINY, seed=2).state_dict()
    for name, p in first.items():
        assert torch.equal(p, again[name])
        assert p.ndim == 1 or not torch.isclose(p, other[name], atol=0).any()


def test_weights_have_the_documented_spread():
    config = GPTConfig(n_layer=2, n_head=2, d_model=64)
    for name, p in GPT(config).named_parameters():
        if p.ndim == 1:
            assert (p == 1).all()
            continue
        std = 0.02 if name == "wte.weight" else p.shape[1] ** -0.5
        if "out" in name or "down" in name:
            std /= 2  # √(2 n_layer)
        assert p.std().item() == pytest.approx(std, rel=0.05)
        assert abs(p.mean().item()) < 0.1 * std


def frequencies(logits, n=20_000, **choice) -> np.ndarray:
    drawn = models.sample_tokens(np.tile(logits, (n, 1)), np.random.default_rng(0), **choice)
    return np.bincount(drawn, minlength=len(logits)) / n


P = np.array([0.1, 0.4, 0.05, 0.3, 0.15])
CUTS = [({}, P), ({"temperature": 0.5}, P**2 / (P**2).sum()),
        ({"temperature": 2.0}, P**0.5 / (P**0.5).sum()),
        ({"top_k": 2}, np.array([0, 4, 0, 3, 0]) / 7), ({"top_k": 1}, np.eye(5)[1]),
        ({"top_k": 9}, P), ({"top_p": 0.7 - 1e-9}, np.array([0, 4, 0, 3, 0]) / 7),
        ({"top_p": 0.7 + 1e-9}, np.array([0, 8, 0, 6, 3]) / 17), ({"top_p": 1e-9}, np.eye(5)[1]),
        ({"top_k": 3, "top_p": 0.5}, np.array([0, 4, 0, 3, 0]) / 7)]


@pytest.mark.parametrize(("choice", "expected"), CUTS)
def test_probabilities_and_drawn_shares_follow_temperature_top_k_and_top_p(choice, expected):
    found = models.probabilities(np.log(P), **choice)
    assert np.allclose(found, expected)
    several = models.probabilities(np.log(np.stack([P, P[::-1]])), **choice)
    assert np.allclose(several, [expected, expected[::-1]])
    error = frequencies(np.log(P), **choice) - expected
    assert (np.abs(error) <= 4 * np.sqrt(expected * (1 - expected) / 20_000)).all()


def test_of_equally_likely_tokens_top_k_keeps_exactly_k():
    assert np.count_nonzero(models.probabilities(np.zeros(9), top_k=4)) == 4


def test_temperature_zero_takes_the_likeliest_and_leaves_the_generator_alone():
    rng = np.random.default_rng(0)
    logits = np.array([0.0, 2.0, 1.9])
    assert {int(models.sample_tokens(logits, rng, temperature=0)) for _ in range(20)} == {1}
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_sampling_leaves_its_logits_alone_and_bears_large_ones():
    logits = np.array([1000.0, 999.0, -1000.0])
    kept = logits.copy()
    models.sample_tokens(logits, np.random.default_rng(0), top_k=1)
    assert np.array_equal(logits, kept)
    assert frequencies(logits, 2000)[2] == 0


@every_shape
def test_parameter_counts_equal_the_modules(config):
    model = GPT(config)
    N, N_total = n_params(config)
    assert N_total == sum(p.numel() for p in model.parameters())
    assert N == N_total - model.wte.weight.numel()


@every_shape
@pytest.mark.parametrize(("batch", "share_of_context"), [(1, 1.0), (3, 0.5)])
def test_flops_equal_what_torch_counts(config, batch, share_of_context):
    model, seq = GPT(config), int(config.context * share_of_context)
    tokens = torch.zeros(batch, seq, dtype=torch.int64)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        logits = model(tokens)
        forward = counter.get_total_flops()
        F.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
    expected = batch * seq * flops_per_token(config, seq)
    assert counter.get_total_flops() == expected
    assert forward * 3 == expected


def test_flops_approach_six_per_parameter_for_wide_models():
    wide = GPTConfig(n_layer=4, n_head=64, d_model=4096)
    assert flops_per_token(wide, 128) / (6 * n_params(wide)[0]) == pytest.approx(1, abs=0.02)
