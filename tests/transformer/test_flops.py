"""Memory by formula against the tensors PyTorch holds; plans by dimension and a published run."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import runtime
from helpers.transformer import flops, steps
from helpers.transformer.models import GPT, GPTConfig
from helpers.transformer.training import TrainConfig, make_optimizer

SHAPES = [GPTConfig(vocab=50, context=32, n_layer=1, n_head=1, d_model=8),
          GPTConfig(vocab=256, context=64, n_layer=3, n_head=4, d_model=32)]
every_shape = pytest.mark.parametrize("config", SHAPES, ids=lambda c: f"d{c.d_model}")


@pytest.fixture(autouse=True)
def one_thread():
    runtime.setup()


def batch_of(config, batch, seq):
    drawn = np.random.default_rng(0).integers(0, config.vocab, (batch, seq + 1))
    return torch.from_numpy(drawn)


@every_shape
def test_state_takes_sixteen_bytes_a_parameter(config):
    model, settings = GPT(config), TrainConfig(lr=1e-3, n_steps=100)
    optimizer, tokens = make_optimizer(model, settings), batch_of(config, 2, 8)
    steps.accumulate(model, tokens, settings)
    optimizer.step()
    moments = [state[k] for state in optimizer.state.values() for k in ("exp_avg", "exp_avg_sq")]
    held = [*model.parameters(), *(p.grad for p in model.parameters()), *moments]
    assert flops.training_bytes(config) == sum(t.nbytes for t in held)
    assert flops.training_bytes(config) == 16 * sum(p.numel() for p in model.parameters())


@every_shape
@pytest.mark.parametrize(("batch", "seq"), [(2, 8), (3, 32), (5, 17)])
def test_activations_are_what_autograd_saves(config, batch, seq):
    model, tokens, kept = GPT(config), batch_of(config, batch, seq), {}
    steps.prepare(model, TrainConfig(lr=1, n_steps=100))
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), tokens)}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits = model(tokens[:, :-1])
        steps.token_loss(logits.flatten(0, 1), tokens[:, 1:].flatten())
    held = sum(piece.nbytes() for at, piece in kept.items() if at not in own)
    assert held == flops.activation_bytes(config, batch, seq)


def test_activations_are_linear_in_batch_depth_and_seq():
    def held(n_layer=2, batch=4, seq=16):
        return flops.activation_bytes(GPTConfig(n_layer=n_layer), batch, seq)

    assert held(seq=32) == 2 * held()
    assert held(batch=6) - held() == held() - held(batch=2)
    assert held(n_layer=3) - held() == held() - held(n_layer=1)


def test_a_plan_agrees_with_a_published_run():
    gpt3 = flops.plan(175e9, 300e9, peak_flops=1.0, mfu=1.0)
    assert gpt3["seconds"] == pytest.approx(3.14e23, rel=0.01)
    assert gpt3["bytes"] == 2.8e12


def test_devices_share_the_time_and_neither_the_energy_nor_the_cost():
    one, four = (flops.plan(1e9, 2e10, 312e12, 0.4, n, watts=400, price=2.0) for n in (1, 4))
    assert one["seconds"] == pytest.approx(4 * four["seconds"])
    for name in ("bytes", "device_hours", "kWh", "cost"):
        assert one[name] == pytest.approx(four[name])
    assert one["kWh"] == pytest.approx(0.4 * one["seconds"] / 3600)
    assert one["cost"] == pytest.approx(2 * one["device_hours"])


def test_a_plan_without_prices_costs_nothing():
    free = flops.plan(1e9, 2e10, 1e14, 0.5)
    assert free["kWh"] == free["cost"] == 0


@pytest.mark.parametrize("sigma", [0.5, 4.0])
def test_the_noise_scale_is_that_of_the_synthetic_gradients(sigma):
    rng = np.random.default_rng(1)
    true = rng.normal(size=300)
    single = true + sigma * rng.normal(size=(4000, 300))
    pooled = single.reshape(80, 50, 300).mean(axis=1)
    found = steps.noise_scale((single**2).sum(1).mean(), (pooled**2).sum(1).mean(), 1, 50)
    assert found == pytest.approx(sigma**2 * 300 / (true @ true), rel=0.05)


def test_gradients_without_noise_have_the_noise_scale_zero():
    assert steps.noise_scale(7.0, 7.0, 1, 64) == 0


def test_the_noise_scale_counts_in_the_units_of_its_batches():
    windows = steps.noise_scale(9.0, 2.0, 1, 64)
    assert steps.noise_scale(9.0, 2.0, 128, 64 * 128) == pytest.approx(128 * windows)


def test_doubling_the_windows_doubles_all_but_the_rotation():
    config = SHAPES[1]
    rotation = 4 * 16 * config.d_model // config.n_head
    two, four = (flops.activation_bytes(config, batch, 16) - rotation for batch in (2, 4))
    assert four == 2 * two


@pytest.mark.parametrize("config", SHAPES, ids=lambda c: f"d{c.d_model}")
def test_a_model_is_counted_as_its_config_says(config):
    assert flops.measured(GPT(config), 16) == (*flops.n_params(config),
                                               flops.flops_per_token(config, 16))


@pytest.mark.parametrize(("name", "value"), [
    ("mfu", 40), ("mfu", 0), ("mfu", -0.4), ("mfu", float("nan")), ("n_devices", 0),
    ("n_devices", 1.5), ("n_devices", True), ("price", -1.0), ("watts", -1), ("N", 0), ("D", -1.0),
    ("N", float("inf")), ("D", [1e9, float("nan")]), ("peak_flops", 0), ("peak_flops", "fast"),
    ("N", None)])
def test_a_plan_that_no_machine_has_is_refused_by_name(name, value):
    given = {"N": 1e9, "D": 2e10, "peak_flops": 3e14, "mfu": 0.4, name: value}
    with pytest.raises((ValueError, TypeError), match=f"plan: {name}="):
        flops.plan(**given)


@given(st.integers(1, 10**13), st.integers(1, 10**14), st.floats(1, 1e18), st.floats(1e-3, 1),
       st.integers(1, 10**5))
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_a_plan_of_whole_numbers_or_arrays_is_that_of_python_s_integers(N, D, peak, mfu, n):
    alone = flops.plan(N, D, peak, mfu, n)
    assert alone["seconds"] * peak * mfu * n == pytest.approx(6 * N * D)
    for whole in (np.int64, lambda x: np.array([x, x])):  # 6ND leaves int64 behind
        found = flops.plan(whole(N), whole(D), peak, mfu, n)
        assert all(np.allclose(found[name], alone[name], rtol=1e-12) for name in alone)


@pytest.mark.parametrize("count", [
    lambda c: flops.n_params("GPT-2"), lambda c: flops.training_bytes(None),
    lambda c: flops.flops_per_token(c, 0), lambda c: flops.flops_per_token(c, 1.5),
    lambda c: flops.flops_per_token(c, True), lambda c: flops.measured(c, 16),
    lambda c: flops.measured(GPT(c), 0), lambda c: flops.activation_bytes(c, 1, 16),
    lambda c: flops.activation_bytes(c, 2, 0), lambda c: flops.activation_bytes(c, -2, 16)])
def test_what_cannot_be_counted_is_refused(count):
    with pytest.raises((ValueError, TypeError), match=r"\w+: (config|seq|batch|model)=.*expected"):
        count(SHAPES[0])


@pytest.mark.parametrize(("gradients", "message"), [
    ((7.0, 3.0, 64, 64), "expected b_small below b_big"), ((7.0, 3.0, 64, 1), "b_small below"),
    ((3.0, 7.0, 1, 64), "no longer than a small one's: average over more batches"),
    ((64.0, 1.0, 1, 64), "expected a signal"), ((65.0, 1.0, 1, 64), "expected a signal"),
    ((0.0, 0.0, 1, 64), "expected a signal"), ((-1.0, 1.0, 1, 64), "g_small=-1.0"),
    ((float("nan"), 1.0, 1, 64), "g_small=nan"), ((7.0, 3.0, 0, 64), "b_small=0")])
def test_gradients_without_a_noise_scale_are_refused(gradients, message):
    with pytest.raises(ValueError, match=message):
        steps.noise_scale(*gradients)


@given(st.floats(0.01, 1e6), st.floats(0, 1e6), st.integers(1, 100), st.integers(1, 10**4))
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_the_noise_scale_inverts_the_model_of_noise(signal, noise, b_small, more):
    b_big = b_small + more
    norms = (signal + noise / b for b in (b_small, b_big))
    found = steps.noise_scale(*norms, b_small, b_big)
    assert found == pytest.approx(noise / signal, rel=1e-3, abs=1e-6 * b_big)
