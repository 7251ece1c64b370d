"""Models and runs come back to the bit; a file that is not what it says is refused."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from helpers import data, runtime
from helpers.compress import prune, quantize
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
    assert [f.name for f in file.parent.iterdir()] == [file.name]


# What saves must load


def shrunk() -> models.GPT:
    """A model whose first block has lost a head and MLP channels, its second all channels."""
    model = models.GPT(SHAPE, seed=3)
    prune.shrink_heads(model.blocks[0].attn, torch.tensor([1]))
    prune.shrink_mlp(model.blocks[0], torch.tensor([5, 2, 60]))
    prune.shrink_mlp(model.blocks[1], torch.arange(0))
    return model


def compiled() -> models.GPT:
    """A model of which one block is compiled."""
    model = models.GPT(SHAPE, seed=3)
    model.blocks[0] = torch.compile(model.blocks[0], backend="eager")
    return model


@torch.no_grad()
@pytest.mark.parametrize("make", [
    shrunk, compiled, lambda: torch.compile(models.GPT(SHAPE, seed=3), backend="eager"),
    lambda: models.GPT(SHAPE, seed=3).double()])
def test_a_shrunk_compiled_or_double_model_comes_back_with_equal_logits(make, file):
    model, tokens = make(), torch.arange(16)[None]
    checkpoints.save_model(model, file)
    loaded = checkpoints.load_model(file)
    assert torch.equal(loaded(tokens), model(tokens))
    whole = models.generate(loaded, [1, 2, 3], 8, np.random.default_rng(0))
    assert whole.tolist() == models.generate(getattr(model, "_orig_mod", model), [1, 2, 3], 8,
                                             np.random.default_rng(0)).tolist()


def test_a_run_of_a_shrunk_model_goes_on_with_equal_losses(batches, file):
    losses = {}
    for resumed in (False, True):
        model = shrunk()
        optimizer = training.make_optimizer(model, CONFIG)
        first = training.run_steps(model, optimizer, batches, CONFIG, 0, 6)
        if resumed:
            checkpoints.save_run(file, model, optimizer, CONFIG, 6)
            model, optimizer, _, _ = checkpoints.load_run(file)
        losses[resumed] = first + training.run_steps(model, optimizer, batches, CONFIG, 6, 12)
    assert losses[True] == losses[False]


def test_rounded_weights_are_refused_until_rounding_stops(file):
    model = models.GPT(SHAPE, seed=3)
    quantize.train_rounded(model, 4, "row")
    optimizer = training.make_optimizer(model, CONFIG)
    for save in (lambda: checkpoints.save_model(model, file),
                 lambda: checkpoints.save_run(file, model, optimizer, CONFIG, 0)):
        with pytest.raises(ValueError, match=r"call quantize\.stop_rounding\(model\) before"):
            save()
    assert not file.exists()
    quantize.stop_rounding(model)
    checkpoints.save_model(model, file)
    for name, p in checkpoints.load_model(file).state_dict().items():
        assert torch.equal(p, models.GPT(SHAPE, seed=3).state_dict()[name])


def test_what_could_not_go_on_is_not_saved(file):
    model = models.GPT(SHAPE)
    stale = training.make_optimizer(model, CONFIG)
    prune.shrink_mlp(model.blocks[0], torch.arange(3))
    wrong = torch.optim.SGD(model.parameters(), 0.1)
    right = training.make_optimizer(model, CONFIG)
    for optimizer, step, facts, says in (
            (stale, 0, {}, "make it anew after the model was shrunk"),
            (wrong, 0, {}, r"expected one of training\.make_optimizer"),
            (right, 25, {}, "expected a step of the run"), (right, -1, {}, "step=-1"),
            (right, 0, {"sha256": "0"}, "expected other names"),
            (right, 0, {"seconds": 3}, "got int for seconds")):
        with pytest.raises((TypeError, ValueError), match=says):
            checkpoints.save_run(file, model, optimizer, CONFIG, step, **facts)
    model.blocks[0].extra = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="could not be read back: 16 tensors: expected 14"):
        checkpoints.save_model(model, file)
    assert not file.exists()


def test_numpy_s_integers_in_a_config_are_saved(file):
    shape = models.GPTConfig(**{k: np.int64(v) for k, v in dataclasses.asdict(SHAPE).items()})
    config = TrainConfig(lr=np.float64(1e-2), n_steps=np.int32(24), batch_size=np.int64(4),
                         seq=np.int64(16), warmup_steps=np.int64(4))
    model = models.GPT(shape)
    checkpoints.save_run(file, model, training.make_optimizer(model, config), config, np.int64(3))
    loaded, _, found, step = checkpoints.load_run(file)
    assert (loaded.config, found, step) == (SHAPE, CONFIG, 3)


# What is not as it was written is refused by name


LOADERS = (checkpoints.load_model, checkpoints.load_run, checkpoints.header,
           checkpoints.load_tokenised)


def test_what_is_no_whole_file_is_refused_with_a_cure_by_every_loader(file, tmp_path):
    checkpoints.save_model(models.GPT(SHAPE), file)
    raw = file.read_bytes()
    for content in (b"", raw[:5], raw[:200], raw[:len(raw) // 2], raw[:-1], raw + b"\0", b"PK" * 99,
                    b"\xff" * 99, b"{}", raw[500:]):
        file.write_bytes(content)
        for load in LOADERS:
            with pytest.raises(ValueError, match=r"here\.safetensors is cut short or no safe"):
                load(file)
    save_file({"w": torch.ones(2)}, file, {"format": "pt"})
    for load in LOADERS:
        with pytest.raises(ValueError, match=r"here\.safetensors holds no config and hash"):
            load(file)
        with pytest.raises(ValueError, match="is a folder or device"):
            load(tmp_path)
        with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
            load(tmp_path / "none.safetensors")
        with pytest.raises(TypeError, match="path=3: expected str or PathLike"):
            load(3)


def forge(file, tensors=None, **header) -> None:
    """Write a file whose hash is right and whose content is not."""
    tensors = tensors or models.GPT(SHAPE).state_dict()
    checkpoints._write(file, tensors, {"config": json.dumps(dataclasses.asdict(SHAPE)), **header})


OTHERS = (("n_head", 3), ("n_head", 0), ("n_layer", "2"), ("d_model", 1.5), ("vocab", -1),
          ("n_layer", 10**9), ("d_model", 10**6), ("vocab", None), ("extra", 1))
CONFIGS = ["{", "[]", "7", "{}", '{"d_model": 16}',
           *(json.dumps({**dataclasses.asdict(SHAPE), name: value}) for name, value in OTHERS)]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_that_is_none_or_another_model_s_is_refused_by_name(config, file):
    forge(file, config=config)
    with pytest.raises(ValueError, match=r"here\.safetensors (holds no GPTConfig|does not hold)"):
        checkpoints.load_model(file)


@pytest.mark.parametrize("change", [
    {"norm.weight": None}, {"norm.weight": torch.ones(15)}, {"extra": torch.ones(2)},
    {"wte.weight": torch.ones(256, 16, dtype=torch.int64)}, {"blocks.0.up.weight": torch.ones(7)},
    {"blocks.1.attn.out.weight": torch.ones(16, 12)}, {"blocks.0.up.weight": torch.ones(3, 16)}])
def test_tensors_that_miss_or_do_not_fit_are_named(change, file):
    state = {**models.GPT(SHAPE).state_dict(), **change}
    forge(file, {name: p for name, p in state.items() if p is not None})
    with pytest.raises(ValueError, match=r"here\.safetensors does not hold the model of its conf"):
        checkpoints.load_model(file)


def test_a_run_whose_state_or_step_does_not_fit_is_refused_by_name(file):
    state = {f"model.{name}": p for name, p in models.GPT(SHAPE).state_dict().items()}
    run = {"training": json.dumps(dataclasses.asdict(CONFIG)), "step": "3"}
    forge(file, state, **run)
    assert checkpoints.load_run(file)[3] == 3
    for tensors, header in (({}, {"step": "25"}), ({}, {"step": "-1"}), ({}, {"step": "x"}),
                            ({}, {"training": "{}"}), ({"other": torch.ones(1)}, {}),
                            ({"adam.0.step": torch.ones(())}, {}),
                            ({"adam.99.exp_avg": torch.ones(2)}, {})):
        forge(file, state | tensors, **run | header)
        with pytest.raises(ValueError, match=r"here\.safetensors"):
            checkpoints.load_run(file)


@pytest.mark.parametrize("merges", ["{", "7", '{"a": 1}', "[[1]]", "[[1, 2, 3]]", "[[1, 256]]",
                                    "[[1, -1]]", '[["a", "b"]]', "[[1.0, 2]]", "[[1, 2]]", "null"])
def test_merges_that_are_none_are_refused_by_name(merges, file):
    forge(file, merges=merges)  # the model knows 256 tokens: any merge is one too many
    with pytest.raises(ValueError, match=r"here\.safetensors.* merges"):
        checkpoints.load_tokenised(file)
    forge(file, merges="[]")
    assert checkpoints.load_tokenised(file)[1] == []


def test_an_altered_header_is_noticed(file):
    checkpoints.save_model(models.GPT(SHAPE), file, note="one")
    raw = file.read_bytes()
    assert raw.count(b'"note":"one"') == 1
    file.write_bytes(raw.replace(b'"note":"one"', b'"note":"two"'))
    with pytest.raises(ValueError, match="was altered"):
        checkpoints.load_model(file)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_refused_by_name(place, bit, tmp_path_factory):
    file = tmp_path_factory.mktemp("bit") / "here.safetensors"
    checkpoints.save_model(models.GPT(models.GPTConfig(16, 8, 1, 1, 4)), file)
    raw = bytearray(file.read_bytes())
    raw[int(place * len(raw))] ^= 1 << bit
    file.write_bytes(raw)
    with pytest.raises(ValueError, match=r"here\.safetensors"):
        checkpoints.load_model(file)


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_full_disk_leaves_the_old_file_whole_and_nothing_beside_it(file):
    checkpoints.save_model(models.GPT(SHAPE, seed=1), file)
    before = file.read_bytes()
    code = ("import resource, sys\n"
            "from helpers.transformer import checkpoints, models\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
            "model = models.GPT(models.GPTConfig(16, 8, 1, 1, 64))\n"
            "try:\n    checkpoints.save_model(model, sys.argv[1])\n"
            "except OSError as error:\n    print(error)\n")
    said = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True,
                          check=True)
    assert "here.safetensors could not be written" in said.stdout
    assert file.read_bytes() == before
    assert [f.name for f in file.parent.iterdir()] == ["here.safetensors"]
    with pytest.raises(FileNotFoundError, match="none"):
        checkpoints.save_model(models.GPT(SHAPE), file.parent / "none" / "here.safetensors")


def test_a_device_that_is_not_there_is_named(file):
    checkpoints.save_model(models.GPT(SHAPE), file)
    with pytest.raises(ValueError, match="device='warp': expected a device of this machine"):
        checkpoints.load_model(file, "warp")


def test_model_of_names_what_does_not_fit_and_copies_what_does():
    tensors = models.GPT(SHAPE, seed=3).state_dict()
    model = checkpoints.model_of(SHAPE, tensors)
    assert model.wte.weight.data_ptr() != tensors["wte.weight"].data_ptr()
    assert torch.equal(model.wte.weight, tensors["wte.weight"])
    tensors["blocks.1.down.weight"] = torch.ones(16, 63)
    with pytest.raises(ValueError, match=r"blocks\.1\.down\.weight is .* of \(16, 63\)"):
        checkpoints.model_of(SHAPE, tensors)
