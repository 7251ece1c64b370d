"""One run: bitwise repeatable, resumable at any step, exactly recorded."""

import dataclasses
import json
from math import log, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from helpers import data, runtime
from helpers.compress import prune, quantize
from helpers.transformer import checkpoints, models, training
from helpers.transformer.flops import flops_per_token, n_params
from helpers.transformer.training import TrainConfig, wsd

SHAPE = models.GPTConfig(context=16, n_layer=2, n_head=2, d_model=16)
CONFIG = TrainConfig(lr=1e-2, n_steps=24, batch_size=4, seq=16, warmup_steps=4)
repeated = settings(max_examples=25, deadline=None, derandomize=True, database=None)
ACCELERATOR = next((name for name, module in (("cuda", torch.cuda), ("mps", torch.backends.mps))
                    if module.is_available()), None)


@pytest.fixture(autouse=True)
def one_thread():
    runtime.setup()


@pytest.fixture(scope="module")
def batches():
    """Three words in random order: quickly learnt in part, never wholly."""
    words = np.random.default_rng(0).choice(["apple ", "pear ", "plum "], 2000)
    tokens = data.encode(["".join(words)])
    return data.TokenBatches(tokens, CONFIG.batch_size, CONFIG.seq)


@pytest.fixture(scope="module")
def validation(batches):
    return data.windows(batches.tokens, 50, CONFIG.seq)


def weights(model) -> torch.Tensor:
    return torch.cat([p.detach().cpu().flatten() for p in model.parameters()])


def test_a_seed_gives_the_same_run_to_the_bit(batches, validation):
    runs = []
    for seed in (0, 0, 1):
        model = models.GPT(SHAPE, seed)
        row, losses = training.train(model, batches, CONFIG, validation)
        runs.append((row.loss, losses, weights(model)))
    assert runs[0][:2] == runs[1][:2]
    assert torch.equal(runs[0][2], runs[1][2])
    assert runs[0][1] != runs[2][1]


@pytest.mark.parametrize("k", [1, 4, 13, 20])
def test_a_run_in_two_parts_equals_the_whole_to_the_bit(batches, k):
    whole, parts = models.GPT(SHAPE), models.GPT(SHAPE)
    optimizer = training.make_optimizer(whole, CONFIG)
    losses = training.run_steps(whole, optimizer, batches, CONFIG, 0, CONFIG.n_steps)
    optimizer = training.make_optimizer(parts, CONFIG)
    again = training.run_steps(parts, optimizer, batches, CONFIG, 0, k)
    training.evaluate(parts, data.windows(batches.tokens, 3, CONFIG.seq))  # does no harm
    fresh = data.TokenBatches(batches.tokens, CONFIG.batch_size, CONFIG.seq)
    again += training.run_steps(parts, optimizer, fresh, CONFIG, k, CONFIG.n_steps)
    assert losses == again
    assert torch.equal(weights(whole), weights(parts))


def test_training_lowers_the_loss_from_that_of_a_guess(batches, validation):
    model = models.GPT(SHAPE)
    row, losses = training.train(model, batches, dataclasses.replace(CONFIG, n_steps=80),
                                 validation)
    assert losses[0] == pytest.approx(log(256), abs=0.2)
    assert row.loss < 1.2
    assert row.loss > log(3) / (16 / 3)  # a third each, 16 bytes in all: no model knows more


@pytest.mark.parametrize("change", [{"n_micro": 2}, {"n_micro": 3}, {"recompute": True},
                                    {"n_micro": 4, "recompute": True}])
def test_saving_memory_changes_no_loss(batches, change):
    runs = []
    for config in (CONFIG, dataclasses.replace(CONFIG, **change)):
        model = models.GPT(SHAPE)
        optimizer = training.make_optimizer(model, config)
        runs.append(training.run_steps(model, optimizer, batches, config, 0, CONFIG.n_steps))
    assert runs[1] == pytest.approx(runs[0], rel=1e-4)


def test_a_later_run_without_recomputation_keeps_nothing_of_an_earlier_one(batches):
    model = models.GPT(SHAPE)
    for recompute in (True, False):
        config = dataclasses.replace(CONFIG, recompute=recompute)
        training.run_steps(model, training.make_optimizer(model, config), batches, config, 0, 1)
        assert ("forward" in vars(model.blocks[0])) == recompute


def test_bfloat16_products_end_at_the_loss_of_float32(batches, validation):
    rows = {}
    for dtype in ("float32", "bfloat16"):
        config = dataclasses.replace(CONFIG, n_steps=80, dtype=dtype)
        rows[dtype], _ = training.train(models.GPT(SHAPE), batches, config, validation)
        assert rows[dtype].dtype == dtype
    assert rows["bfloat16"].loss != rows["float32"].loss
    assert rows["bfloat16"].loss == pytest.approx(rows["float32"].loss, abs=0.02)


@pytest.mark.parametrize(("wrong", "message"), [
    ({"dtype": "float16"}, "dtype='float16': expected 'float32' or 'bfloat16'"),
    ({"n_micro": 0}, r"n_micro=0: expected 1 … batch_size=4"),
    ({"n_micro": 5}, r"n_micro=5: expected 1 … batch_size=4"),
])
def test_a_config_that_cannot_run_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **wrong)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.skipif(ACCELERATOR is None, reason="no CUDA or MPS device")
def test_an_accelerator_takes_the_same_run(batches, validation, dtype):
    rows, config = {}, dataclasses.replace(CONFIG, dtype=dtype)
    for device in ("cpu", ACCELERATOR):
        model = models.GPT(SHAPE).to(device)
        rows[device] = training.train(model, batches, config, validation)
        assert model.wte.weight.device.type == device
    (cpu, cpu_losses), (fast, fast_losses) = rows.values()
    assert fast_losses[0] == pytest.approx(cpu_losses[0], rel=1e-4 if dtype == "float32" else 1e-2)
    assert fast.loss == pytest.approx(cpu.loss, rel=0.02)
    assert (fast.N, fast.D, fast.C) == (cpu.N, cpu.D, cpu.C)


def test_on_step_sees_each_step_its_loss_and_the_schedule_s_rate(batches):
    model = models.GPT(SHAPE)
    optimizer, seen = training.make_optimizer(model, CONFIG), []

    def note(step, loss):
        seen.append((step, loss, optimizer.param_groups[0]["lr"]))

    losses = training.run_steps(model, optimizer, batches, CONFIG, 0, CONFIG.n_steps, note)
    assert [s for s, _, _ in seen] == list(range(CONFIG.n_steps))
    assert [loss for _, loss, _ in seen] == losses
    expected = [CONFIG.lr * wsd(s, CONFIG.n_steps, CONFIG.warmup_steps, CONFIG.decay_steps)
                for s in range(CONFIG.n_steps)]
    assert [lr for _, _, lr in seen] == expected


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(batches, poison):
    model = models.GPT(SHAPE)
    optimizer, seen = training.make_optimizer(model, CONFIG), []

    def spoil(step, loss):
        seen.append(step)
        if step == 2:
            model.wte.weight.data.fill_(poison)

    with pytest.raises(FloatingPointError, match=r"nan at step 3: try a lower lr \(it was 0\.01\) "
                                                 r"or a longer warm-up \(it was 4 steps\)"):
        training.run_steps(model, optimizer, batches, CONFIG, 0, CONFIG.n_steps, spoil)
    assert seen == [0, 1, 2]


def test_a_loss_that_has_left_the_scale_stops_the_run(batches):
    config = dataclasses.replace(CONFIG, lr=30.0, n_steps=200, warmup_steps=0, grad_clip=1e9)
    model = models.GPT(SHAPE)
    with pytest.raises(FloatingPointError, match=r"the loss is \S+ at step \d+: try a lower lr "
                                                 r"\(it was 30\)"):
        training.run_steps(model, training.make_optimizer(model, config), batches, config, 0, 200)


@pytest.mark.parametrize("message", ["CUDA out of memory. Tried to allocate 2.00 GiB",
                                     "DefaultCPUAllocator: can't allocate memory: you tried"])
def test_a_step_that_does_not_fit_says_which_knob_to_turn(batches, monkeypatch, message):
    def full(*_):
        raise RuntimeError(message)

    model = models.GPT(SHAPE)
    monkeypatch.setattr(training, "accumulate", full)
    with pytest.raises(MemoryError, match=r"no memory for step 3: try n_micro=2 \(it was 1\), then "
                                          r"recompute=True, then a smaller batch_size \(it was 4\) "
                                          r"or seq \(it was 16\)"):
        training.run_steps(model, training.make_optimizer(model, CONFIG), batches, CONFIG, 3, 9)


def test_a_real_allocation_that_fails_is_one_of_them(batches, monkeypatch):
    model = models.GPT(SHAPE)
    monkeypatch.setattr(training, "accumulate", lambda *_: torch.empty(2**55))
    with pytest.raises(MemoryError, match="no memory for step 0"):
        training.run_steps(model, training.make_optimizer(model, CONFIG), batches, CONFIG, 0, 1)


def test_another_error_in_a_step_stays_what_it_is(batches):
    model = models.GPT(dataclasses.replace(SHAPE, vocab=100))  # the text has higher bytes
    with pytest.raises(ValueError, match="expected 0 … 99"):
        training.run_steps(model, training.make_optimizer(model, CONFIG), batches, CONFIG, 0, 1)


def test_progress_says_speed_utilisation_and_time_left(monkeypatch):
    now, said, speed = [0.0], [], 4 * 16 / 2  # two seconds a step
    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    peak = speed * flops_per_token(SHAPE, 16) / 0.25
    progress = training.Progress(SHAPE, CONFIG, peak, said.append, every=10)
    for step in range(CONFIG.n_steps):
        now[0] += 2
        progress(step, 1.5)
    assert said[0] == "step 10 of 24 · loss 1.500 · 32 tokens/s · MFU 25% · 0:28 left"
    assert [line.split(" of")[0] for line in said] == ["step 10", "step 20", "step 24"]
    assert said[-1].endswith("0:00 left")


def test_progress_of_a_resumed_run_counts_its_own_steps_alone(monkeypatch):
    now, said = [0.0], []
    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    progress = training.Progress(SHAPE, CONFIG, 1e9, said.append, every=10)
    for step in range(15, 24):
        now[0] += 2
        progress(step, 1.0)
    assert "32 tokens/s" in said[0]
    assert said[0].endswith("0:08 left")


def test_a_step_moves_no_weight_further_than_its_rate_allows(batches):
    model = models.GPT(SHAPE)
    before = weights(model)
    config = dataclasses.replace(CONFIG, warmup_steps=0)
    training.run_steps(model, training.make_optimizer(model, config), batches, config, 0, 1)
    moved = (weights(model) - before).abs()
    assert moved.max() <= config.lr * 1.001  # Adam's first step is the rate's size
    assert moved.max() > config.lr * 0.9


def test_optimizer_has_the_config_s_rate_and_memory_and_no_decay():
    group, = training.make_optimizer(models.GPT(SHAPE),
                                     dataclasses.replace(CONFIG, beta2=0.9)).param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (CONFIG.lr, (0.9, 0.9), 0)


@pytest.mark.parametrize("batch_size", [1, 7, 32, 100])
def test_evaluation_is_the_mean_over_all_tokens_whatever_the_batches(validation, batch_size):
    model = models.GPT(SHAPE)
    model.wte.weight.data *= 30  # so that windows differ in loss
    tokens = torch.from_numpy(validation)
    with torch.no_grad():
        log_p = model(tokens[:, :-1]).double().log_softmax(-1)
    expected = -log_p.gather(-1, tokens[:, 1:, None]).mean().item()
    assert training.evaluate(model, validation, batch_size) == pytest.approx(expected, rel=1e-5)


def test_schedule_rises_linearly_stays_and_falls_to_a_positive_last_step():
    n_steps, warmup, decay = 100, 10, 20
    rate = np.array([wsd(s, n_steps, warmup, decay) for s in range(n_steps)])
    assert np.allclose(rate[:10], np.arange(1, 11) / 10)
    assert (rate[9:81] == 1).all()
    progress = np.arange(1, 20) / 20
    assert np.allclose(rate[81:], 1 - np.sqrt(progress))
    assert (np.diff(rate[80:]) < 0).all()
    assert rate[-1] == pytest.approx(1 - sqrt(0.95))
    assert (rate > 0).all()


@pytest.mark.parametrize(("warmup", "decay"), [(0, 0), (0, 10), (10, 0), (4, 6), (1, 1)])
def test_schedule_stays_within_zero_and_one(warmup, decay):
    rate = np.array([wsd(s, 10, warmup, decay) for s in range(10)])
    assert ((rate > 0) & (rate <= 1)).all()
    assert rate.max() == 1
    assert warmup or decay or (rate == 1).all()


@pytest.mark.parametrize("decay_fraction", [0.0, 0.2, 0.9])
def test_a_schedule_that_just_fits_is_taken_and_one_step_more_is_refused(decay_fraction):
    decay = round(decay_fraction * 100)
    fits = TrainConfig(lr=1, n_steps=100, warmup_steps=100 - decay, decay_fraction=decay_fraction)
    assert fits.decay_steps == decay
    with pytest.raises(ValueError, match=f"{101 - decay} warm-up and {decay} cool-down steps do "
                                         "not fit into 100 steps"):
        dataclasses.replace(fits, warmup_steps=101 - decay)


def test_record_counts_exactly(batches, validation):
    model = models.GPT(SHAPE)
    row, losses = training.train(model, batches, CONFIG, validation)
    tokens = torch.from_numpy(batches[0])
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
    assert row.C == CONFIG.n_steps * counter.get_total_flops()
    assert row.D == 24 * 4 * 16 == sum(batches[s][:, :-1].size for s in range(24))
    assert row.N_total == sum(p.numel() for p in model.parameters())
    assert row.N == row.N_total - model.wte.weight.numel()
    assert len(losses) == row.n_steps == 24
    assert (row.n_layer, row.d_model) == (2, 16)
    assert (row.lr, row.batch_size, row.seq, row.seed) == (1e-2, 4, 16, 0)
    assert row.loss == training.evaluate(model, validation)
    assert row.bpb == pytest.approx(row.loss / log(2))
    halved, _ = training.train(models.GPT(SHAPE), batches, CONFIG, validation, None, 0.5)
    assert halved.bpb == pytest.approx(row.bpb / 2)
    assert (row.vocab, row.dtype) == (256, "float32")
    assert row.device == runtime.device_name(torch.device("cpu"))
    assert row.torch == torch.__version__
    assert row.seconds >= 0
    assert row.commit


def test_commit_is_unknown_outside_a_repository_and_without_git(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert training.commit() == "unknown"
    monkeypatch.setenv("PATH", "")
    assert training.commit() == "unknown"


def longer(tokens, **change) -> data.TokenBatches:
    """Batches of another shape than CONFIG's."""
    return data.TokenBatches(tokens, **{"batch_size": 4, "seq": 16, **change})


@pytest.mark.parametrize("change", [{"batch_size": 2}, {"batch_size": 8}, {"seq": 8}, {"seq": 15}])
def test_batches_that_are_not_the_config_s_are_refused_before_the_first_step(batches, validation,
                                                                             change):
    model = models.GPT(SHAPE)
    before, other = weights(model), longer(batches.tokens, **change)
    with pytest.raises(ValueError, match=r"batches\[0\] has shape .*: expected \(batch_size, "
                                         r"seq \+ 1\) = \(4, 17\), by the config"):
        training.train(model, other, CONFIG, validation)
    assert torch.equal(weights(model), before)


def test_what_the_model_cannot_read_is_refused_before_the_first_step(batches, validation):
    model = models.GPT(SHAPE)
    before, rows = weights(model), batches[0]
    high, low, last = rows.copy(), rows.copy(), rows.copy()
    high[1, 3], low[2, 0], last[3, -1] = 256, -1, 999  # the last is never read, only compared
    long = dataclasses.replace(CONFIG, seq=17)
    for wrong, config, message in (
            ([high], CONFIG, "to 256: expected 0 … 255"), ([low], CONFIG, "token ids from -1"),
            ([last], CONFIG, "to 999: expected 0 … 255"), ([rows.tolist()], CONFIG, "list"),
            ([rows.astype(float)], CONFIG, r"whole numbers, got torch\.float64"),
            (longer(batches.tokens, seq=17), long, "17 tokens are longer than the context of 16")):
        with pytest.raises((ValueError, TypeError), match=message):
            training.train(model, wrong, config, validation)
    assert torch.equal(weights(model), before)


NO_WINDOWS = [([], "2-d"), (np.zeros((0, 17), int), "at least one"), (np.zeros(17, int), "in 2-d"),
              (np.zeros((3, 1), int), "a next token"), (np.full((2, 17), 256), "expected 0 … 255"),
              (np.full((2, 17), -1), "got -1"), (np.zeros((2, 18), int), "the context of 16"),
              (np.zeros((2, 17)), "whole numbers"), (None, "whole numbers"), ("text", "whole")]


@pytest.mark.parametrize(("wrong", "message"), NO_WINDOWS)
def test_windows_without_a_mean_loss_are_refused_before_the_first_step(batches, wrong, message):
    model = models.GPT(SHAPE)
    before = weights(model)
    for examine in (lambda: training.evaluate(model, wrong),
                    lambda: training.train(model, batches, CONFIG, wrong)):
        with pytest.raises((ValueError, TypeError), match=message):
            examine()
    assert torch.equal(weights(model), before)


def test_an_unread_last_target_counts_in_the_vocabulary_too(validation):
    wrong = validation.copy()
    wrong[-1, -1] = 256
    with pytest.raises(ValueError, match="to 256: expected 0 … 255"):
        training.evaluate(models.GPT(SHAPE), wrong)


def test_windows_of_bytes_are_windows_of_numbers(validation):
    model = models.GPT(SHAPE)
    assert training.evaluate(model, validation.astype(np.uint8)) == training.evaluate(model,
                                                                                      validation)
    for batch_size in (0, -1, 2.5, None):
        with pytest.raises((ValueError, TypeError), match="evaluate: batch_size="):
            training.evaluate(model, validation, batch_size)


@pytest.mark.parametrize(("start", "stop"), [(3, 2), (-1, 2), (0, 25), (0, 2.5), (None, 2)])
def test_steps_outside_the_run_are_refused(batches, start, stop):
    model = models.GPT(SHAPE)
    with pytest.raises((ValueError, TypeError), match=r"run_steps: (start|stop)="):
        training.run_steps(model, training.make_optimizer(model, CONFIG), batches, CONFIG, start,
                           stop)


def test_no_steps_are_no_losses(batches):
    model = models.GPT(SHAPE)
    optimizer = training.make_optimizer(model, CONFIG)
    assert training.run_steps(model, optimizer, batches, CONFIG, 24, 24) == []


def test_an_optimiser_of_weights_that_are_gone_is_refused(batches):
    model = models.GPT(SHAPE)
    optimizer = training.make_optimizer(model, CONFIG)
    prune.shrink_mlp(model.blocks[0], [0, 1, 2])
    with pytest.raises(ValueError, match="moves weights that are not the model's"):
        training.run_steps(model, optimizer, batches, CONFIG, 0, 1)


@pytest.mark.parametrize("change", ["mlp", "heads", "both", "compiled", "rounded"])
def test_a_record_counts_the_model_as_it_is(batches, validation, change):
    model = models.GPT(SHAPE)
    if change in ("mlp", "both"):
        prune.shrink_mlp(model.blocks[0], torch.arange(5))
    if change in ("heads", "both"):
        prune.shrink_heads(model.blocks[1].attn, [1])
    if change == "rounded":
        quantize.train_rounded(model, 8, "row")
    counted = model
    if change == "compiled":
        model = torch.compile(model, backend="eager")
    row = training.record(model, CONFIG, 1.5, 2.0)
    tokens = torch.from_numpy(batches[0])
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = counted(tokens[:, :-1]).flatten(0, 1)
        F.cross_entropy(logits, tokens[:, 1:].flatten()).backward()
    assert row.C == CONFIG.n_steps * counter.get_total_flops()
    assert row.N_total == sum(p.numel() for p in counted.parameters())
    assert row.N == row.N_total - 256 * SHAPE.d_model
    gone = {"mlp": 59 * 32, "heads": 32 * 16, "both": 59 * 32 + 32 * 16}.get(change, 0)
    assert row.N == n_params(SHAPE)[0] - gone


@pytest.mark.parametrize(("name", "value"), [("loss", float("nan")), ("loss", -1.0),
                                             ("loss", "low"), ("seconds", -1),
                                             ("tokens_per_byte", 0), ("config", SHAPE)])
def test_a_record_of_what_cannot_be_is_refused(name, value):
    given = {"model": models.GPT(SHAPE), "config": CONFIG, "loss": 1.0, "seconds": 1.0, name: value}
    with pytest.raises((ValueError, TypeError), match=f"record: {name}="):
        training.record(**given)


WRONG_FIELDS = [
    ("lr", 0), ("lr", -1e-3), ("lr", float("nan")), ("lr", float("inf")), ("lr", "1e-3"),
    ("n_steps", 0), ("n_steps", 24.0), ("n_steps", True), ("batch_size", 0), ("seq", 0),
    ("seq", -16), ("warmup_steps", -1), ("warmup_steps", 2.5), ("decay_fraction", -0.1),
    ("decay_fraction", 1.1), ("decay_fraction", float("nan")), ("beta2", 1.0), ("beta2", -0.1),
    ("grad_clip", 0), ("grad_clip", float("nan")), ("seed", -1), ("seed", 1.5), ("dtype", "bf16"),
    ("dtype", torch.float32), ("n_micro", 1.5), ("n_micro", True), ("recompute", 1),
    ("recompute", None)]


@pytest.mark.parametrize(("name", "value"), WRONG_FIELDS)
def test_a_hyper_parameter_that_no_run_can_use_is_refused_by_name(name, value):
    with pytest.raises((ValueError, TypeError), match=f"{name}=.*expected"):
        dataclasses.replace(CONFIG, **{name: value})


def test_a_config_of_numpy_s_numbers_is_saved_like_one_of_python_s(tmp_path, batches):
    fields = dataclasses.asdict(CONFIG)
    numbers = {name: value if isinstance(value, bool | str) else np.array([value])[0]
               for name, value in fields.items()}
    config = TrainConfig(**numbers)
    assert config == CONFIG
    assert json.loads(json.dumps(dataclasses.asdict(config))) == fields
    model = models.GPT(models.GPTConfig(**{name: np.int64(value) for name, value
                                           in dataclasses.asdict(SHAPE).items()}))
    optimizer = training.make_optimizer(model, config)
    training.run_steps(model, optimizer, batches, config, 0, 2)
    checkpoints.save_run(tmp_path / "run", model, optimizer, config, 2)
    assert checkpoints.load_run(tmp_path / "run")[2:] == (CONFIG, 2)


@pytest.mark.parametrize("given", [
    (-1, 10, 2, 2), (10, 10, 2, 2), (11, 10, 0, 0), (0, 0, 0, 0), (0, 10, -1, 2), (0, 10, 2, -1),
    (0, 10, 6, 5), (0.5, 10, 2, 2), (0, 10, None, 2), (True, 10, 2, 2)], ids=str)
def test_a_step_outside_the_schedule_is_refused(given):
    with pytest.raises((ValueError, TypeError), match="wsd: "):
        wsd(*given)


@given(st.integers(1, 300), st.floats(0, 1), st.floats(0, 1))
@repeated
def test_any_schedule_that_fits_rises_stays_and_falls(n_steps, decay, warmup):
    decay = round(decay * n_steps)
    warmup = round(warmup * (n_steps - decay))
    rate = np.array([wsd(s, n_steps, warmup, decay) for s in range(n_steps)])
    assert ((rate > 0) & (rate <= 1)).all()
    assert np.allclose(rate[:warmup], np.arange(1, warmup + 1) / max(warmup, 1))
    assert (rate[warmup:n_steps - decay] == 1).all()
    left = np.arange(decay, 0, -1)
    assert np.allclose(rate[n_steps - decay:], 1 - np.sqrt(1 - left / max(decay, 1)))


@given(st.integers(1, 6), st.integers(1, 15), st.integers(1, 7), st.integers(0, 2**32))
@repeated
def test_an_evaluation_is_the_mean_over_its_windows(n, seq, batch_size, seed):
    rows = np.random.default_rng(seed).integers(0, 256, (n, seq + 1))
    model = models.GPT(SHAPE)
    alone = [training.evaluate(model, row[None]) for row in rows]
    assert training.evaluate(model, rows, batch_size) == pytest.approx(np.mean(alone), rel=1e-5)


@pytest.mark.parametrize(("name", "value"), [
    ("peak_flops", 0), ("peak_flops", -1e9), ("peak_flops", float("nan")), ("every", 0),
    ("every", -5), ("every", 2.5), ("show", "line"), ("shape", CONFIG), ("config", SHAPE)])
def test_a_progress_that_can_say_nothing_is_refused(name, value):
    given = {"shape": SHAPE, "config": CONFIG, "peak_flops": 1e9, "show": print, name: value}
    with pytest.raises((ValueError, TypeError), match=f"Progress: {name}="):
        training.Progress(**given)


def test_progress_of_a_run_that_starts_again_counts_anew(monkeypatch):
    now, said = [0.0], []
    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    progress = training.Progress(SHAPE, CONFIG, 1e9, said.append, every=1)
    for step in (5, 5, 2, 3):
        now[0] += 2
        progress(step, 1.0)
    assert [line.split(" of")[0] for line in said] == ["step 4"]
    assert "32 tokens/s" in said[0]
