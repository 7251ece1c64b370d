"""Memory by formula against the tensors PyTorch holds; plans by dimension and a published run."""

import numpy as np
import pytest
import torch

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
