"""The GPT against formulas, torch's own kernels and its own full recomputation; exact counts."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from helpers.transformer import attention, models
from helpers.transformer.flops import flops_per_token, n_params
from helpers.transformer.models import GPT, GPTConfig, KVCache

TINY = GPTConfig(vocab=32, context=16, n_layer=2, n_head=2, d_model=16)
SHAPES = [TINY, GPTConfig(vocab=11, context=8, n_layer=1, n_head=1, d_model=8),
          GPTConfig(vocab=256, context=24, n_layer=3, n_head=4, d_model=32)]
repeated = settings(max_examples=40, deadline=None, derandomize=True, database=None)
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


FOUR = np.array([0.1, 3.0, 0.2, 2.0])


@pytest.mark.parametrize("choice", [{"top_p": 0}, {"top_p": 1e-300}, {"temperature": 1e-310},
                                    {"temperature": 5e-324}, {"top_k": 1}, {"temperature": 1e-3}])
def test_at_any_limit_the_likeliest_token_is_kept_and_taken(choice):
    assert models.probabilities(FOUR, **choice).tolist() == [0, 1, 0, 0]
    drawn = models.sample_tokens(np.tile(FOUR, (50, 1)), np.random.default_rng(0), **choice)
    assert drawn.tolist() == [1] * 50
    assert models.probabilities([3, 1, 3], temperature=1e-310).tolist() == [0.5, 0, 0.5]


def test_cuts_wider_than_the_vocabulary_and_impossible_tokens_are_taken():
    expected = np.exp(FOUR) / np.exp(FOUR).sum()
    assert np.allclose(models.probabilities(FOUR, top_k=99), expected)
    found = models.probabilities([-np.inf, 3.0, 0.2, -np.inf], temperature=2)
    assert np.allclose(found, [0, 1 / (1 + np.exp(-1.4)), 1 / (1 + np.exp(1.4)), 0])
    assert models.probabilities([-1e308, 1e308]).tolist() == [0, 1]
    assert models.probabilities(np.array([1, 2], np.uint8), top_k=np.int64(1)).tolist() == [0, 1]
    assert int(models.sample_tokens(torch.tensor([1.0, 2.0]), None, temperature=0)) == 1


NAN, INF = float("nan"), float("inf")
NO_LOGITS = [[0.1, NAN, 0.2], [NAN] * 3, [-INF] * 3, [0.1, INF, 0.2], [[0.1, 0.2], [-INF, -INF]],
             [], [[]], 1.0, "logits", [[1.0, 2.0], [3.0]], [1j, 2.0], None]


@pytest.mark.parametrize("logits", NO_LOGITS, ids=str)
def test_logits_without_a_finite_largest_are_refused(logits):
    for draw in (models.probabilities, lambda z: models.sample_tokens(z, np.random.default_rng(0)),
                 lambda z: models.sample_tokens(z, None, temperature=0)):
        with pytest.raises((ValueError, TypeError), match="logits="):
            draw(logits)


@pytest.mark.parametrize(("name", "value"), [
    ("top_k", -1), ("top_k", 2.5), ("top_k", True), ("top_p", 1.01), ("top_p", -0.1),
    ("top_p", NAN), ("top_p", "0.9"), ("temperature", -1.0), ("temperature", NAN),
    ("temperature", INF), ("temperature", None), ("temperature", [1.0])])
def test_a_dial_outside_its_range_is_refused_by_name(model, name, value):
    rng = np.random.default_rng(0)
    for draw in (lambda **c: models.probabilities(FOUR, **c),
                 lambda **c: models.sample_tokens(FOUR, rng, **c),
                 lambda **c: models.generate(model, [1], 3, rng, **c)):
        with pytest.raises((ValueError, TypeError), match=f": {name}="):
            draw(**{name: value})


def test_a_distribution_has_no_temperature_zero_and_a_draw_no_missing_generator():
    with pytest.raises(ValueError, match=r"temperature=0: expected a finite number > 0"):
        models.probabilities(FOUR, temperature=0)
    with pytest.raises(ValueError, match="expected a numpy generator"):
        models.sample_tokens(FOUR, None)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=12), st.floats(1e-3, 1e3),
       st.integers(0, 15), st.floats(0, 1))
@repeated
def test_any_choice_is_the_softmax_cut_to_the_likeliest(z, temperature, top_k, top_p):
    found = models.probabilities(z, temperature, top_k, top_p)
    p = torch.tensor(z, dtype=torch.float64).div(temperature).softmax(0).numpy()
    kept, total = [], 0.0
    for i in np.argsort(-p, kind="stable")[:top_k or len(z)]:
        if not kept or total < top_p - 1e-12:
            kept.append(i)
        total += p[i]
    if abs(np.cumsum(np.sort(p)[::-1]) - top_p).min() > 1e-9:  # else rounding decides
        expected = np.where(np.isin(np.arange(len(z)), kept), p, 0)
        assert np.allclose(found, expected / expected.sum(), atol=1e-9)
    assert found.sum() == pytest.approx(1)
    assert found[np.argmax(z)] == found.max()
    assert found[models.sample_tokens(z, np.random.default_rng(0), temperature, top_k, top_p)] > 0


ANYTHING = st.one_of(st.floats(), st.integers(-3, 300), st.booleans(), st.none(),
                     st.text(max_size=3),
                     st.lists(st.floats() | st.integers(-2**70, 2**70), max_size=3))


@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING)
@repeated
def test_any_value_gives_a_distribution_or_is_refused(logits, temperature, top_k, top_p):
    try:
        p = models.probabilities(logits, temperature, top_k, top_p)
    except (ValueError, TypeError):
        return
    assert p.sum() == pytest.approx(1)


@given(st.dictionaries(st.sampled_from(["vocab", "context", "n_layer", "n_head", "d_model"]),
                       st.one_of(ANYTHING, st.integers(1, 64).map(np.int64)), max_size=5))
@repeated
def test_a_config_holds_python_s_integers_or_is_refused(fields):
    try:
        config = GPTConfig(**fields)
    except (ValueError, TypeError):
        return
    assert all(type(value) is int and value > 0 for value in dataclasses.asdict(config).values())
    assert json.loads(json.dumps(dataclasses.asdict(config))) == dataclasses.asdict(config)
    assert config.d_model // config.n_head % 2 == 0


@pytest.mark.parametrize(("wrong", "message"), [
    ({"vocab": 0}, "vocab=0: expected a whole number ≥ 1"), ({"context": 0}, "context=0"),
    ({"n_layer": -1}, "n_layer=-1"), ({"n_head": 0}, "n_head=0"), ({"d_model": 0}, "d_model=0"),
    ({"n_layer": True}, "n_layer=True: expected a whole number.*got bool"),
    ({"d_model": 64.0}, r"d_model=64\.0: expected a whole number.*got float"),
    ({"n_head": None}, "n_head=None"), ({"vocab": "256"}, "vocab='256'")])
def test_a_shape_that_no_model_has_is_refused_by_name(wrong, message):
    with pytest.raises((ValueError, TypeError), match=message):
        GPTConfig(**wrong)


@torch.no_grad()
def test_a_cache_is_for_one_batch_of_texts_one_model_and_its_own_context(model, tokens):
    cache = KVCache(4)
    model(tokens[:, :4], cache)
    with pytest.raises(ValueError, match="5 tokens are longer than the cache's context of 4"):
        model(tokens[:, 4:5], cache)
    with pytest.raises(ValueError, match="6 tokens are longer than the cache's context of 4"):
        model(tokens[:, :6], KVCache(4))
    for texts in (1, 2, 6):  # one text's keys would be broadcast over all three
        cache = KVCache(TINY.context)
        model(tokens[:, :4], cache)
        with pytest.raises(ValueError, match="expected the same batch, heads and width"):
            model(tokens[:1, 4:5].expand(texts, 1), cache)
    with pytest.raises(ValueError, match="the cache holds another model's keys"):
        GPT(TINY)(tokens[:, 4:5], cache)
    for context in (0, -1, 2.5, None, True):
        with pytest.raises((ValueError, TypeError), match="KVCache: context="):
            KVCache(context)


@pytest.mark.parametrize(("prompt", "message"), [
    ([32], "token ids from 32 to 32: expected 0 … 31"), ([-1], "got -1 at index 0"),
    ([1.5], "expected whole numbers"), (["a"], "expected whole numbers"), (3, "in 1 or 2-d"),
    ([[[1]]], "in 1 or 2-d"), (list(range(17)), "17 tokens are longer than the context of 16"),
    ([True, False], "expected whole numbers")])
def test_a_prompt_that_cannot_be_read_is_refused(model, prompt, message):
    with pytest.raises((ValueError, TypeError), match=message):
        models.generate(model, prompt, 3, np.random.default_rng(0))


def test_a_prompt_of_bytes_is_a_prompt_of_numbers(model):
    small, large = (models.generate(model, np.array([3, 1], dtype), 3, None, temperature=0)
                    for dtype in (np.uint8, np.int64))
    assert small.tolist() == large.tolist()
    for n_tokens in (-1, 2.5, None, True):
        with pytest.raises((ValueError, TypeError), match="n_tokens="):
            models.generate(model, [1], n_tokens, None, temperature=0)
    with pytest.raises(TypeError, match="expected a GPT with its config, got Linear"):
        models.generate(torch.nn.Linear(2, 2), [1], 3, None, temperature=0)


@pytest.mark.parametrize("shapes", [((4, 8), (5, 8), (5, 8)), ((4, 8), (4, 6), (4, 6)),
                                    ((4, 8), (4, 8), (5, 8)), ((2, 4, 8), (1, 4, 8), (1, 4, 8)),
                                    ((8,), (8,), (8,)), ((0, 8), (0, 8), (0, 8))], ids=str)
def test_attention_of_unequal_or_empty_shapes_is_refused(shapes):
    with pytest.raises(ValueError, match=r"expected equal shapes \(\.\.\., seq, d_head\)"):
        attention.attention(*(torch.zeros(shape) for shape in shapes))


def test_a_rotation_for_another_length_or_width_is_refused():
    x, turn = torch.zeros(4, 8), attention.rotation(torch.arange(4), 8)
    for wrong in (turn[:1], turn[:, :1], turn[:, :3], turn.real, turn[None]):
        with pytest.raises(ValueError, match=r"\(seq, d_head/2\) of `rotation`"):
            attention.rotate(x, wrong)
    for positions, d_head, base in ((torch.arange(4), 7, 10.0), (torch.arange(4), 0, 10.0),
                                    (torch.arange(4)[None], 8, 10.0), (torch.arange(4), 8, 0),
                                    (torch.arange(4), 8, NAN), ([0, 1], 8, 10.0)):
        with pytest.raises((ValueError, TypeError), match="rotation: "):
            attention.rotation(positions, d_head, base)


def test_lists_and_floats_are_no_tokens_and_a_text_is_no_config(model):
    with pytest.raises(TypeError, match=r"tokens=.*expected Tensor, got list"):
        model([[1, 2]])
    for config, seed in (("tiny", 0), (TINY, -1), (TINY, 1.5), (None, 0)):
        with pytest.raises((ValueError, TypeError), match="GPT: "):
            GPT(config, seed)


def test_the_rules_leave_a_compiled_model_in_one_graph(model, tokens):
    compiled = torch.compile(model, backend="eager", fullgraph=True)  # raises at a break
    assert torch.equal(compiled(tokens), model(tokens))
