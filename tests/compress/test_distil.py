"""Hinton's loss against references, and students that learn from their teacher alone."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from helpers.compress.distil import distil, distillation_loss
from helpers.data import TokenBatches
from helpers.transformer import training
from helpers.transformer.models import GPT, GPTConfig
from helpers.transformer.training import TrainConfig

SHAPE = GPTConfig(vocab=32, context=16, n_layer=1, n_head=2, d_model=16)
RUN = TrainConfig(lr=1e-2, n_steps=12, batch_size=4, seq=16, warmup_steps=2)


def logits(seed=0, n=9, vocab=11):
    rng = np.random.default_rng(seed)
    z, z_teacher = torch.from_numpy(3 * rng.normal(size=(2, n, vocab)))
    return z, z_teacher, torch.from_numpy(rng.integers(vocab, size=n))


@pytest.fixture
def batches():
    rng = np.random.default_rng(0)
    return TokenBatches(rng.integers(32, size=2000), RUN.batch_size, RUN.seq)


def weights(model):
    return torch.cat([w.detach().flatten() for w in model.parameters()])


def test_two_tokens_by_hand():
    even, tilted = torch.zeros(1, 2), torch.tensor([[np.log(3.0), 0.0]])
    loss = distillation_loss(even, tilted, torch.tensor([1]), 0.25, 1)
    soft = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    assert float(loss) == pytest.approx(0.75 * np.log(2) + 0.25 * soft)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_is_that_of_torch_s_kl_div_and_cross_entropy(weight, temperature):
    z, z_teacher, targets = logits()
    kl = F.kl_div((z / temperature).log_softmax(-1), (z_teacher / temperature).log_softmax(-1),
                  reduction="batchmean", log_target=True)
    expected = (1 - weight) * F.cross_entropy(z, targets) + weight * temperature**2 * kl
    assert torch.allclose(distillation_loss(z, z_teacher, targets, weight, temperature), expected)


def test_a_student_that_equals_its_teacher_has_no_soft_loss_and_no_gradient():
    z, _, targets = logits()
    z.requires_grad_()
    loss = distillation_loss(z, z.detach().clone() + 5.0, targets, 1.0, 2.0)
    assert abs(loss.item()) < 1e-12
    assert torch.autograd.grad(loss, z)[0].abs().max() < 1e-12


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_soft_gradient_is_t_times_the_difference_of_probabilities(temperature):
    z, z_teacher, targets = logits()
    z.requires_grad_()
    loss = distillation_loss(z, z_teacher, targets, 1.0, temperature)
    expected = temperature * ((z / temperature).softmax(-1) - (z_teacher / temperature).softmax(-1))
    assert torch.allclose(torch.autograd.grad(loss, z)[0], expected / len(z))


def test_at_a_high_temperature_the_gradient_is_the_difference_of_centred_logits():
    z, z_teacher, targets = logits()
    z.requires_grad_()
    loss = distillation_loss(z, z_teacher, targets, 1.0, 1e4)
    expected = (z - z.mean(-1, keepdim=True)) - (z_teacher - z_teacher.mean(-1, keepdim=True))
    assert torch.allclose(torch.autograd.grad(loss, z)[0], expected / z.numel(), rtol=1e-2,
                          atol=1e-5)


def test_extreme_logits_stay_finite():
    z, z_teacher = torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]])
    assert torch.isfinite(distillation_loss(z, z_teacher, torch.tensor([0]), 0.5, 1.0))


def test_weight_zero_is_plain_training(batches):
    student, plain = GPT(SHAPE), GPT(SHAPE)
    losses = distil(student, GPT(SHAPE, seed=1), batches, RUN, 0.0, 1.0)
    alone = training.run_steps(plain, training.make_optimizer(plain, RUN), batches, RUN, 0,
                               RUN.n_steps)
    assert losses == pytest.approx(alone, rel=1e-4)
    assert torch.allclose(weights(student), weights(plain), atol=1e-4)


def test_a_student_comes_nearer_to_its_teacher_which_stays_as_it_was(batches):
    teacher = GPT(SHAPE, seed=1)
    with torch.no_grad():
        teacher.wte.weight.mul_(20)  # so that it is sure of something
    before, seen = copy.deepcopy(teacher.state_dict()), []
    losses = distil(GPT(SHAPE), teacher, batches, replace(RUN, n_steps=60), 1.0, 1.0,
                    on_step=lambda step, loss: seen.append((step, loss)))
    assert losses[-1] < 0.7 * losses[0]
    assert seen == list(enumerate(losses))
    assert all(torch.equal(w, before[name]) for name, w in teacher.state_dict().items())
    assert all(w.grad is None for w in teacher.parameters())


def test_bfloat16_gives_nearly_the_same_losses(batches):
    runs = [distil(GPT(SHAPE), GPT(SHAPE, seed=1), batches, replace(RUN, dtype=dtype), 0.5, 2.0)
            for dtype in ("float32", "bfloat16")]
    assert runs[0] == pytest.approx(runs[1], rel=0.02)


@pytest.mark.parametrize(("weight", "temperature"), [(-0.1, 1), (1.1, 1), (0.5, 0), (0.5, -2),
                                                     (0.5, float("nan"))])
def test_a_bad_weight_or_temperature_is_refused(batches, weight, temperature):
    with pytest.raises(ValueError, match="expected 0 … 1, and above 0"):
        distil(GPT(SHAPE), GPT(SHAPE), batches, RUN, weight, temperature)


def test_models_of_different_vocabularies_are_refused(batches):
    other = GPT(replace(SHAPE, vocab=33))
    with pytest.raises(ValueError, match="32 tokens, the teacher 33"):
        distil(GPT(SHAPE), other, batches, RUN, 0.5, 1)


def test_split_batches_are_refused(batches):
    with pytest.raises(ValueError, match="n_micro=2"):
        distil(GPT(SHAPE), GPT(SHAPE), batches, replace(RUN, n_micro=2), 0.5, 1)


def test_a_loss_that_is_not_finite_stops_the_run(batches):
    student = GPT(SHAPE)
    with torch.no_grad():
        student.norm.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="at step 0: try a lower lr"):
        distil(student, GPT(SHAPE), batches, RUN, 0.5, 1)


@pytest.mark.parametrize(("change", "says"), [
    ({"weight": 1.5}, "weight"), ({"weight": float("nan")}, "weight"), ({"temperature": 0}, ">"),
    ({"temperature": float("inf")}, "temperature"), ({"z": torch.zeros(9, 10)}, "equal shapes"),
    ({"targets": torch.full((9,), -100)}, "inside the vocabulary"),  # torch would leave them out
    ({"targets": torch.full((9,), 11)}, "inside the vocabulary"),
    ({"targets": torch.zeros(8, dtype=torch.long)}, "equal lengths")])
def test_a_loss_of_what_does_not_fit_is_refused(change, says):
    z, z_teacher, targets = logits()
    given = {"z": z, "z_teacher": z_teacher, "targets": targets, "weight": 0.5, "temperature": 1}
    with pytest.raises(ValueError, match=f"distillation_loss: .*{says}"):
        distillation_loss(**given | change)
    with pytest.raises(TypeError, match="whole numbers"):
        distillation_loss(z, z_teacher, targets.float(), 0.5, 1)


def test_narrow_targets_are_taken():
    z, z_teacher, targets = logits()
    assert torch.equal(distillation_loss(z, z_teacher, targets.to(torch.uint8), 0.5, 2.0),
                       distillation_loss(z, z_teacher, targets, 0.5, 2.0))


def test_batches_of_another_config_and_a_model_as_its_own_teacher_are_refused(batches):
    with pytest.raises(ValueError, match="batches of the config's"):
        distil(GPT(SHAPE), GPT(SHAPE), batches, replace(RUN, batch_size=5), 0.5, 1)
    with pytest.raises(ValueError, match="two models"):
        distil(model := GPT(SHAPE), model, batches, RUN, 0.5, 1)
