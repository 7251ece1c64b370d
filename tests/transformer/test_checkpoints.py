"""Models and runs come back to the bit; a file that is not what it says is refused."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from helpers import data, runtime
from helpers.transformer import checkpoints, models, training
from helpers.transformer.training import TrainConfig

SHAPE = models.GPTConfig(context=16, n_layer=2, n_head=2, d_model=16)
CONFIG = TrainConfig(lr=1e-2, n_steps=24, batch_size=4, seq=16, warmup_steps=4)


@pytest.fixture(autouse=True)
def one_thread():
    runtime.setup()


@pytest.fixture(scope="module")
def batches():
    words = np.random.default_rng(0).choice(["apple ", "pear ", "plum "], 2000)
    return data.TokenBatches(data.encode(["".join(words)]), CONFIG.batch_size, CONFIG.seq)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "here.safetensors"


@torch.no_grad()
def test_a_saved_model_comes_back_with_equal_logits_and_its_facts(file):
    model = models.GPT(SHAPE, seed=3)
    checkpoints.save_model(model, file, commit="abc", note="a fact")
    loaded = checkpoints.load_model(file)
    assert loaded.config == SHAPE
    tokens = torch.arange(16)[None]
    assert torch.equal(loaded(tokens), model(tokens))
    with safe_open(file, "pt") as opened:
        assert opened.metadata()["note"] == "a fact"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("k", [0, 1, 13, 23])
def test_a_resumed_run_gives_the_losses_of_an_uninterrupted_one_to_the_bit(batches, file, k, dtype):
    config = TrainConfig(lr=1e-2, n_steps=24, batch_size=4, seq=16, warmup_steps=4, dtype=dtype)
    whole = models.GPT(SHAPE)
    losses = training.run_steps(whole, training.make_optimizer(whole, config), batches, config,
                                0, config.n_steps)
    part = models.GPT(SHAPE)
    optimizer = training.make_optimizer(part, config)
    first = training.run_steps(part, optimizer, batches, config, 0, k)
    checkpoints.save_run(file, part, optimizer, config, k)
    model, optimizer, found, step = checkpoints.load_run(file)
    assert (found, step) == (config, k)
    rest = training.run_steps(model, optimizer, batches, found, step, found.n_steps)
    assert first + rest == losses
    for p, q in zip(whole.parameters(), model.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("header", [None, {"format": "pt"}, {"config": "{}"}])
def test_a_foreign_file_of_weights_is_refused_by_name(file, header):
    save_file({"w": torch.ones(2)}, file, header)
    for read in (checkpoints.load_model, checkpoints.load_run):
        with pytest.raises(ValueError, match=r"here\.safetensors holds no config and hash"):
            read(file)


@pytest.mark.parametrize("place", [-1, -1000])
def test_one_flipped_bit_is_noticed(file, place):
    checkpoints.save_model(models.GPT(SHAPE), file)
    raw = bytearray(file.read_bytes())
    raw[place] ^= 1
    file.write_bytes(raw)
    with pytest.raises(ValueError, match=r"here\.safetensors was altered"):
        checkpoints.load_model(file)


def test_two_swapped_tensors_of_one_shape_are_noticed(file):
    checkpoints.save_model(models.GPT(SHAPE), file)
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    one, two = "blocks.0.up.weight", "blocks.1.up.weight"
    save_file({**tensors, one: tensors[two], two: tensors[one]}, file, header)
    with pytest.raises(ValueError, match="was altered"):
        checkpoints.load_model(file)


def test_a_model_is_no_run(file):
    checkpoints.save_model(models.GPT(SHAPE), file)
    with pytest.raises(ValueError, match="holds a model and no run"):
        checkpoints.load_run(file)


def test_an_interrupted_write_leaves_the_old_file_whole(file, monkeypatch):
    checkpoints.save_model(models.GPT(SHAPE, seed=1), file)
    before = file.read_bytes()

    def fails(_tensors, path, _header):
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(checkpoints, "save_file", fails)
    with pytest.raises(OSError, match="no space left"):
        checkpoints.save_model(models.GPT(SHAPE, seed=2), file)
    assert file.read_bytes() == before
