"""The step's own gradients against float64 formulas; accumulation and averaging change nothing."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from helpers import runtime
from helpers.transformer import attention, steps
from helpers.transformer.models import GPT, GPTConfig
from helpers.transformer.training import TrainConfig

SHAPE = GPTConfig(vocab=50, context=16, n_layer=2, n_head=2, d_model=16)


@pytest.fixture(autouse=True)
def one_thread():
    runtime.setup()


def drawn(*shape, seed=0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


def relative(found, expected) -> float:
    return ((found.double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("shape", [(2, 3, 16, 8), (1, 1, 1, 4), (3, 2, 65, 16)])
def test_bfloat16_attention_and_its_gradients_follow_the_formula(shape):
    q, k, v, dy = (drawn(*shape, seed=s) for s in range(4))
    exact = [x.double().requires_grad_() for x in (q, k, v)]
    ours = [x.clone().requires_grad_() for x in (q, k, v)]
    expected = attention.attention(*exact)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = steps.fast_attention(*ours)
    assert found.dtype == torch.bfloat16
    assert found.shape == q.shape
    assert relative(found, expected) < 0.01
    expected.backward(dy.double())
    found.backward(dy.bfloat16())
    for mine, theirs in zip(ours, exact, strict=True):
        assert mine.grad.dtype == torch.float32
        assert torch.allclose(mine.grad.double(), theirs.grad,
                              atol=0.02 * theirs.grad.abs().max().item() + 1e-12)


def test_bfloat16_attention_sees_no_future():
    q, k, v = (drawn(1, 1, 8, 4, seed=s) for s in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        before = steps.fast_attention(q, k, v)
        k[..., 5, :], v[..., 5, :] = 100.0, -100.0
        after = steps.fast_attention(q, k, v)
    assert torch.equal(before[..., :5, :], after[..., :5, :])


def test_without_autocast_attention_is_torch_s_own():
    q, k, v = (drawn(2, 2, 8, 4, seed=s) for s in range(3))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert torch.equal(steps.fast_attention(q, k, v), expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("n", [1, 7])
def test_cross_entropy_and_its_gradient_equal_torch_s(dtype, tolerance, n):
    logits, targets = 3 * drawn(n, 11), torch.arange(n) % 11
    ours = logits.to(dtype, copy=True).requires_grad_()
    theirs = ours.detach().double().requires_grad_()
    found, expected = steps.token_loss(ours, targets), F.cross_entropy(theirs, targets)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    (2 * found).backward()
    (2 * expected).backward()
    assert ours.grad.dtype == dtype
    assert torch.allclose(ours.grad.double(), theirs.grad, atol=tolerance)


def test_an_impossible_token_costs_much_but_not_infinity():
    logits = torch.tensor([[0.0, 1e6]], requires_grad=True)
    loss = steps.token_loss(logits, torch.tensor([0]))
    assert 80 < loss.item() < 90
    loss.backward()
    assert logits.grad.tolist() == [[-1, 1]]


def test_a_second_backward_pass_through_the_loss_is_refused_not_wrong():
    loss = steps.token_loss(drawn(3, 5).requires_grad_(), torch.arange(3))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def gradients(model, config, tokens) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    steps.prepare(model, config)
    loss = steps.accumulate(model, tokens, config)
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("n_micro", [2, 3, 7])
@pytest.mark.parametrize("recompute", [False, True])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(n_micro, recompute):
    model = GPT(SHAPE)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 50, (7, 17)))
    whole = gradients(model, TrainConfig(lr=1, n_steps=100, batch_size=7), tokens)
    parts = gradients(model, TrainConfig(lr=1, n_steps=100, batch_size=7, n_micro=n_micro,
                                         recompute=recompute), tokens)
    assert parts[0] == pytest.approx(whole[0], rel=1e-6)
    assert torch.allclose(parts[1], whole[1], atol=1e-6)


def held(config, tokens) -> int:
    """Bytes that the graph of one batch's loss keeps for the backward pass."""
    kept, model = {}, GPT(SHAPE)
    steps.prepare(model, config)

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(tokens[:, :-1]).sum()
    return sum(kept.values())


def test_recomputation_keeps_less():
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 50, (7, 17)))
    plain, again = (held(TrainConfig(lr=1, n_steps=100, batch_size=7, recompute=r), tokens)
                    for r in (False, True))
    assert again < plain / 2


SCRIPT = """
import json, sys
import numpy as np, torch
from torch import distributed as dist
from helpers import data, runtime
from helpers.transformer import models, training
runtime.setup(0)
dist.init_process_group("gloo")
tokens = np.random.default_rng(0).integers(0, 50, 4000)
config = training.TrainConfig(lr=1e-2, n_steps=20, batch_size=int(sys.argv[1]), seq=16,
                              warmup_steps=4)
model = models.GPT(models.GPTConfig(vocab=50, context=16, n_layer=2, n_head=2, d_model=16))
try:
    losses = training.run_steps(model, training.make_optimizer(model, config),
                                data.TokenBatches(tokens, config.batch_size, 16), config, 0, 20)
except ValueError as error:
    losses = str(error)
if dist.get_rank() == 0:
    open(sys.argv[2], "w").write(json.dumps(losses))
dist.barrier()  # none leaves while another still talks
dist.destroy_process_group()
"""


def losses_of(n_process: int, batch_size: int, folder):
    script, out = folder / "run.py", folder / f"{n_process}.json"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(n_process),
               "--master-addr", "127.0.0.1", "--master-port", str(29_400 + os.getpid() % 500),
               "--log-dir", str(folder), str(script), str(batch_size), str(out)]
    interface = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    result = subprocess.run(command, env={**os.environ, **interface, "OMP_NUM_THREADS": "1"},
                            capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(out.read_text())


@pytest.mark.skipif(sys.platform == "win32", reason="torchrun's store needs libuv there")
def test_two_processes_take_the_run_of_one(tmp_path):
    one, two = (losses_of(n, 6, tmp_path) for n in (1, 2))
    assert len(one) == 20
    assert two == pytest.approx(one, rel=1e-5)
    assert "no equal shares for 2 processes" in losses_of(2, 5, tmp_path)


BATCH = torch.from_numpy(np.random.default_rng(0).integers(0, 50, (7, 17)))


@pytest.mark.parametrize(("tokens", "n_micro", "message"), [
    (BATCH[:2], 3, "expected at least n_micro windows"), (BATCH[:0], 1, "at least n_micro windows"),
    (BATCH[:, :1], 1, r"expected windows \(batch, seq \+ 1\)"), (BATCH[0], 1, "expected windows"),
    (BATCH.float(), 1, r"whole numbers, got torch\.float32"), (BATCH > 5, 1, r"got torch\.bool"),
    (BATCH + 1, 1, "token ids from 1 to 50: expected 0 … 49"), (BATCH.numpy(), 1, "got ndarray")])
def test_a_batch_without_a_mean_loss_is_refused(tokens, n_micro, message):
    config = TrainConfig(lr=1, n_steps=100, n_micro=n_micro)
    with pytest.raises((ValueError, TypeError), match=message):
        steps.accumulate(GPT(SHAPE), tokens, config)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_targets_of_any_integer_type_give_the_same_loss(dtype):
    logits, targets = drawn(6, 11), torch.tensor([0, 10, 3, 3, 9, 1])
    assert steps.token_loss(logits, targets.to(dtype)) == steps.token_loss(logits, targets)


@pytest.mark.parametrize(("logits", "targets", "message"), [
    (drawn(6, 11), torch.arange(5), "one target for each row"),  # the mean of five was given
    (drawn(6, 11), torch.arange(7), "one target for each row"),
    (drawn(6, 11), torch.arange(6)[:, None], "one target for each row"),
    (drawn(2, 3, 11), torch.arange(2), r"logits \(n, vocab\)"),
    (drawn(0, 11), torch.arange(0), r"logits \(n, vocab\)"),
    (drawn(2, 11), torch.tensor([0, 11]), "token ids from 0 to 11: expected 0 … 10"),
    (drawn(2, 11), torch.tensor([0, -100]), "token ids from -100 to 0: expected 0 … 10"),
    (drawn(2, 11), torch.tensor([0.0, 1.0]), "targets=.*whole numbers"),
    (torch.ones(2, 11, dtype=torch.int64), torch.arange(2), "logits=.*floating-point"),
    ([[0.5, 0.5]], torch.arange(1), "logits=.*got list")])
def test_targets_that_do_not_fit_their_logits_are_refused(logits, targets, message):
    with pytest.raises((ValueError, TypeError), match=message):
        steps.token_loss(logits, targets)


def test_attention_of_unequal_shapes_is_refused_unless_keys_are_cached():
    q, k = drawn(2, 3, 1, 4), drawn(2, 3, 5, 4)
    assert steps.fast_attention(q, k, k, is_causal=False).shape == q.shape
    for wrong in ((q, k, k), (k, q, q), (k, k, q), (k[:1], k, k), (k[0], k[0], k[0])):
        with pytest.raises(ValueError, match=r"equal shapes \(batch, n_head, seq, d_head\)"):
            steps.fast_attention(*wrong)
    with pytest.raises(ValueError, match="equal shapes"):
        steps.fast_attention(k, k[:, :1], k[:, :1], is_causal=False)


def test_a_mean_over_processes_needs_a_group_and_tensors():
    with pytest.raises(ValueError, match="process group"):
        steps.average([torch.ones(2)])
    for wrong in ([], [None], torch.ones(2, dtype=torch.int64), 3):
        with pytest.raises((ValueError, TypeError), match="average: tensors="):
            steps.average(wrong)


def test_only_a_gpt_and_its_run_s_config_are_prepared():
    for model, config in ((torch.nn.Linear(2, 2), TrainConfig(lr=1, n_steps=100)),
                          (GPT(SHAPE), SHAPE), (None, None)):
        with pytest.raises(TypeError, match=r"prepare: (model|config)=.*expected"):
            steps.prepare(model, config)


@given(st.integers(1, 9), st.integers(2, 12), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
def test_the_loss_is_the_mean_of_minus_log_p_and_sums_its_gradient_to_zero(n, vocab, seed):
    rng = np.random.default_rng(seed)
    z, ids = rng.normal(0, 3, (n, vocab)), rng.integers(vocab, size=n)
    logits = torch.from_numpy(z).float().requires_grad_()
    loss = steps.token_loss(logits, torch.from_numpy(ids))
    expected = np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(n), ids])
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    loss.backward()
    assert logits.grad.sum(1).abs().max() < 1e-6
