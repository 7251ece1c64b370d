"""Masks keep the right weights, sparse storage loses nothing, and shrinking changes no output."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from helpers.compress import prune
from helpers.compress.quantize import stop_rounding, train_rounded
from helpers.data import TokenBatches
from helpers.transformer.models import GPT, GPTConfig, KVCache, generate
from helpers.transformer.training import TrainConfig


def gaussian(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


@pytest.fixture
def weights():
    return {"a": gaussian(7, 5), "b": 0.1 * gaussian(4, 9, seed=1)}


@pytest.fixture
def model():
    return GPT(GPTConfig(vocab=32, context=16, n_layer=2, n_head=2, d_model=16))


@pytest.mark.parametrize("density", [0.0, 0.013, 0.5, 0.77, 1.0])
def test_global_mask_keeps_the_largest_of_all_tensors(weights, density):
    mask = prune.magnitude_mask(weights, density)
    sizes = torch.cat([w.abs().flatten() for w in weights.values()])
    kept = torch.cat([mask[n].flatten() for n in weights])
    assert int(kept.sum()) == round(density * len(sizes))
    if 0 < kept.sum() < len(sizes):
        assert sizes[kept].min() >= sizes[~kept].max()
    assert {n: m.shape for n, m in mask.items()} == {n: w.shape for n, w in weights.items()}


def test_among_equal_magnitudes_the_first_stay_and_the_count_is_exact():
    mask = prune.magnitude_mask({"w": torch.tensor([1.0, -1.0, 1.0, -1.0])}, 0.5)
    assert mask["w"].tolist() == [True, True, False, False]


def test_layer_mask_has_one_density_and_global_has_not(weights):
    def densities(mask):
        return [float(m.double().mean()) for m in mask.values()]
    assert densities(prune.layer_mask(weights, 0.4)) == pytest.approx([0.4, 0.4], abs=0.02)
    large, small = densities(prune.magnitude_mask(weights, 0.4))
    assert large > 0.7
    assert small < 0.1


def test_random_mask_has_the_density_and_comes_from_its_generator(weights):
    one, same, other = (prune.random_mask(weights, 0.4, np.random.default_rng(s))
                        for s in (3, 3, 4))
    assert all(int(m.sum()) == round(0.4 * m.numel()) for m in one.values())
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert not all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("density", [-0.1, 1.1, float("nan")])
def test_a_density_that_is_no_share_is_refused(weights, density):
    for masks in (prune.magnitude_mask, prune.layer_mask):
        with pytest.raises(ValueError, match="density"):
            masks(weights, density)
    with pytest.raises(ValueError, match="density"):
        prune.random_mask(weights, density, np.random.default_rng(0))


def test_masks_reach_the_model_and_leave_embeddings_and_norms(model):
    before = copy.deepcopy(model.state_dict())
    weights = prune.matrices(model)
    assert set(before) - set(weights) == {n for n in before if "blocks" not in n or "norm" in n}
    mask = prune.layer_mask(weights, 0.25)
    prune.apply_mask(model, mask)
    for name, w in model.state_dict().items():
        assert torch.equal(w, before[name] * mask[name] if name in mask else before[name])
    assert all(p.requires_grad for p in model.parameters())


def test_a_wrong_name_or_a_model_without_blocks_is_refused(model):
    with pytest.raises(KeyError):
        prune.apply_mask(model, {"blocks.9.up.weight": torch.ones(1)})
    with pytest.raises(ValueError, match="Linear"):
        prune.matrices(torch.nn.Linear(2, 2))


def test_removed_energy_of_an_even_spread_is_the_cube_of_the_sparsity():
    even = {"w": torch.linspace(0, 1, 10_001, dtype=torch.float64)}
    for s in (0.0, 0.1, 0.5, 1.0):
        energy = prune.removed_energy(even, prune.magnitude_mask(even, 1 - s))
        assert energy == pytest.approx(s**3, abs=1e-3)


@pytest.mark.parametrize("index", [torch.uint8, torch.int16, torch.int32])
@pytest.mark.parametrize(("shape", "density"), [
    ((1, 1), 1.0), ((1, 1), 0.0), ((3, 256), 0.1), ((256, 3), 0.5), ((5, 7), 0.0), ((5, 7), 1.0),
    ((0, 4), 0.5),
])
def test_csr_matches_scipy_and_comes_back(shape, density, index):
    w = gaussian(*shape).float()
    w *= torch.from_numpy(np.random.default_rng(1).random(shape) < density)
    if index == torch.int16 and w.numel():
        w[-1, -1] = float("inf")  # a value like any other
    packed = prune.to_csr(w, index)
    assert packed["columns"].dtype == index
    if len(w):
        reference = sparse.csr_matrix(w.numpy())
        for ours, theirs in (("values", "data"), ("columns", "indices"), ("starts", "indptr")):
            np.testing.assert_array_equal(packed[ours].numpy(), getattr(reference, theirs))
    back = prune.from_csr(packed, shape[1])
    assert back.dtype == w.dtype
    assert torch.equal(back, w)


def test_columns_that_do_not_fit_into_the_index_are_refused():
    with pytest.raises(ValueError, match="257 columns"):
        prune.to_csr(torch.ones(2, 257), torch.uint8)


@pytest.mark.parametrize("n_keep", [0, 1, 40, 64])
def test_a_shrunk_model_computes_what_the_zeroed_one_does(model, n_keep):
    zeroed = copy.deepcopy(model)
    for small, large in zip(model.blocks, zeroed.blocks, strict=True):
        keep = prune.channel_scores(large).argsort(descending=True)[:n_keep]
        prune.shrink_mlp(small, keep)
        assert small.up.weight.shape == (n_keep, 16)
        assert small.down.weight.shape == (16, n_keep)
        gone = torch.ones(64, dtype=torch.bool)
        gone[keep] = False
        prune.apply_mask(large, {"up.weight": ~gone[:, None].expand(64, 16)})
    tokens = torch.arange(16)[None]
    torch.testing.assert_close(model(tokens), zeroed(tokens), rtol=0, atol=1e-5)


def test_channel_scores_are_the_size_of_each_term(model):
    block = model.blocks[0].double()
    up, down = block.up.weight.detach(), block.down.weight.detach()
    sizes = [float(torch.outer(down[:, j], up[j]).norm()) for j in range(64)]
    np.testing.assert_allclose(prune.channel_scores(block).numpy(), sizes)


def test_a_shrunk_model_still_trains_and_generates_with_a_cache(model):
    for block in model.blocks:
        prune.shrink_mlp(block, torch.arange(8))
    model(torch.arange(8)[None]).sum().backward()
    assert model.blocks[0].up.weight.grad.shape == (8, 16)
    assert len(generate(model, [1, 2], 5, np.random.default_rng(0))) == 7


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (1, 4), (0, 4), (4, 4), (1, 1)])
def test_nm_keeps_exactly_the_n_largest_of_every_m_neighbours(n, m):
    w = gaussian(6, 16)
    groups = prune.nm_mask({"w": w}, n, m)["w"].view(-1, m)
    for keep, sizes in zip(groups, w.abs().view(-1, m), strict=True):
        assert int(keep.sum()) == n
        assert set(sizes[keep].tolist()) == set(sizes.sort(descending=True).values[:n].tolist())


def test_nm_keeps_the_first_of_equals_and_leaves_the_weights_alone():
    w = torch.zeros(2, 4)
    assert prune.nm_mask({"w": w}, 2, 4)["w"].tolist() == [[True, True, False, False]] * 2
    assert not w.any()
    turned = gaussian(8, 4).T  # not contiguous
    assert torch.equal(prune.nm_mask({"w": turned}, 2, 4)["w"],
                       prune.nm_mask({"w": turned.contiguous()}, 2, 4)["w"])


@pytest.mark.parametrize(("n", "m"), [(2, 3), (5, 4), (-1, 4)])
def test_a_pattern_that_does_not_fit_is_refused(n, m):
    with pytest.raises(ValueError, match="does not fit"):
        prune.nm_mask({"w": torch.ones(2, 8)}, n, m)


def zero_heads(attn, keep):
    n_head, d_head = attn.n_head, attn.out.weight.shape[1] // attn.n_head
    gone = np.setdiff1d(np.arange(n_head), keep)
    attn.out.weight.data.view(-1, n_head, d_head)[:, gone] = 0


@pytest.mark.parametrize("keep", [[0], [1], [3, 0], [0, 1, 2, 3]])
def test_a_model_without_heads_computes_what_the_zeroed_one_does(keep):
    large = GPT(GPTConfig(vocab=32, context=16, n_layer=2, n_head=4, d_model=32))
    small = copy.deepcopy(large)
    for i in range(2):
        prune.shrink_heads(small.blocks[i].attn, torch.tensor(keep))
        zero_heads(large.blocks[i].attn, keep)
        assert small.blocks[i].attn.qkv.weight.shape == (3 * 8 * len(keep), 32)
        assert small.blocks[i].attn.n_head == len(keep)
    tokens = torch.arange(16)[None]
    torch.testing.assert_close(small(tokens), large(tokens), rtol=0, atol=1e-5)
    cache = KVCache(16)
    steps = [small(tokens[:, i:i + 1], cache) for i in range(16)]
    torch.testing.assert_close(torch.cat(steps, 1), large(tokens), rtol=0, atol=1e-5)


def test_a_head_scores_the_size_of_the_map_that_it_writes(model):
    attn = model.blocks[0].attn.double()
    values = attn.qkv.weight.detach()[32:].view(2, 8, 16)
    out = attn.out.weight.detach()
    sizes = [float((out[:, 8 * h:8 * h + 8] @ values[h]).norm()) for h in range(2)]
    np.testing.assert_allclose(prune.head_scores(attn).numpy(), sizes)


def test_the_last_head_cannot_be_removed(model):
    with pytest.raises(ValueError, match="at least one head"):
        prune.shrink_heads(model.blocks[0].attn, torch.tensor([], dtype=torch.long))


def tuning(n_steps):
    batches = TokenBatches(np.arange(4000) % 29, 4, 16)
    return batches, TrainConfig(lr=1e-2, n_steps=n_steps, batch_size=4, seq=16, warmup_steps=0)


def test_tuning_lowers_the_loss_and_leaves_what_was_pruned_at_zero(model):
    mask = prune.layer_mask(prune.matrices(model), 0.5)
    losses = prune.tune(model, prune.layer_mask, (0.5,), *tuning(12))
    assert len(losses) == 12
    assert losses[-1] < losses[0]
    for name, w in prune.matrices(model).items():
        assert torch.equal(w != 0, mask[name])


def test_stages_share_the_steps_and_end_at_the_last_density(model):
    asked = []

    def mask_of(weights, density):
        asked.append((density, np.mean([float((w != 0).double().mean()) for w in
                                        weights.values()])))
        return prune.layer_mask(weights, density)

    assert len(prune.tune(model, mask_of, (0.6, 0.3, 0.1), *tuning(10))) == 10
    assert [density for density, _ in asked] == [0.6, 0.3, 0.1]
    assert [found for _, found in asked] == pytest.approx([1, 0.6, 0.3], abs=0.01)
    for w in prune.matrices(model).values():
        assert int((w != 0).sum()) == round(0.1 * w.numel())


def test_tuning_without_a_density_is_refused(model):
    with pytest.raises(ValueError, match="at least one density"):
        prune.tune(model, prune.layer_mask, (), *tuning(2))


@pytest.mark.parametrize(("n_columns", "dtype"), [(1, torch.uint8), (256, torch.uint8),
                                                  (257, torch.int16), (32768, torch.int16),
                                                  (32769, torch.int32)])
def test_columns_get_the_smallest_type_that_holds_them(n_columns, dtype):
    assert prune.index_type(n_columns) == dtype
    prune.to_csr(torch.ones(1, n_columns), dtype)


@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("sparse_file", [True, False])
def test_a_pruned_model_comes_back_from_its_file(model, tmp_path, density, sparse_file):
    prune.shrink_mlp(model.blocks[0], torch.arange(5))
    prune.shrink_heads(model.blocks[1].attn, torch.tensor([1]))
    prune.apply_mask(model, prune.layer_mask(prune.matrices(model), density))
    size = prune.save_pruned(model, path := tmp_path / "model", sparse_file, note="fact")
    assert size == path.stat().st_size
    back = prune.load_pruned(path)
    for (name, p), (other, q) in zip(model.named_parameters(), back.named_parameters(),
                                     strict=True):
        assert name == other
        assert torch.equal(p, q)
    tokens = torch.arange(16)[None]
    torch.testing.assert_close(model(tokens), back(tokens), rtol=0, atol=1e-6)


def test_sparse_files_are_smaller_where_weights_are_few_and_never_larger(tmp_path):
    model = GPT(GPTConfig(vocab=32, context=16, n_layer=1, n_head=4, d_model=64))
    sizes = []
    for density in (1.0, 0.5, 0.1):
        prune.apply_mask(model, prune.layer_mask(prune.matrices(model), density))
        sizes.append([prune.save_pruned(model, tmp_path / "m", how) for how in (True, False)])
    assert sizes[0][0] <= sizes[0][1]
    assert sizes[2][0] < 0.5 * sizes[1][0] < 0.5 * sizes[1][1]
    assert prune.save_pruned(model, tmp_path / "m", True, torch.float16) < sizes[2][0]
    assert all(p.dtype == torch.float32 for p in prune.load_pruned(tmp_path / "m").parameters())


def test_another_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match="not written by save_pruned"):
        prune.load_pruned(tmp_path / "other")


few = settings(max_examples=40, deadline=None, derandomize=True, database=None)


@few
@given(st.integers(0, 2**32), st.floats(-0.5, 1.5) | st.just(float("nan")), st.integers(-1, 9),
       st.integers(-1, 9))
def test_masks_agree_with_numpy_or_are_refused(seed, density, n, m):
    w = gaussian(5, 8, seed=seed)
    sizes = np.abs(w.numpy())
    if 0 <= density <= 1:
        keep = prune.magnitude_mask({"w": w}, density)["w"].numpy()
        expected = np.sort(sizes, axis=None)[40 - round(40 * density):]
        np.testing.assert_array_equal(np.sort(sizes[keep]), expected)
        energy = prune.removed_energy({"w": w}, {"w": torch.from_numpy(keep)})
        assert energy == pytest.approx((sizes[~keep] ** 2).sum() / (sizes**2).sum())
    else:
        with pytest.raises(ValueError, match="density"):
            prune.magnitude_mask({"w": w}, density)
    if m > 0 and 8 % m == 0 and 0 <= n <= m:
        keep = prune.nm_mask({"w": w}, n, m)["w"].view(-1, m).numpy()
        largest = np.sort(sizes.reshape(-1, m), axis=1)[:, m - n:]
        np.testing.assert_array_equal(np.sort(sizes.reshape(-1, m)[keep].reshape(-1, n), axis=1)
                                      if n else largest, largest)
    else:
        with pytest.raises(ValueError, match=r"expected|does not fit"):
            prune.nm_mask({"w": w}, n, m)


@pytest.mark.parametrize("bad", [{}, {"w": torch.full((2, 8), torch.nan)}, [torch.ones(2, 8)],
                                 {"w": torch.full((2, 8), -128, dtype=torch.int8)}, {"w": [[1.0]]}])
def test_weights_without_an_order_of_size_are_refused(bad):
    for masks, how in ((prune.magnitude_mask, (0.5,)), (prune.layer_mask, (0.5,)),
                       (prune.nm_mask, (2, 4)),
                       (prune.random_mask, (0.5, np.random.default_rng(0)))):
        with pytest.raises((ValueError, TypeError), match="expected"):
            masks(bad, *how)


@pytest.mark.parametrize("change", [
    lambda keep: keep.int(), lambda keep: keep.float(), lambda keep: keep[:1], lambda keep: None])
def test_masks_that_do_not_fit_are_refused_before_any_weight_is_touched(model, change):
    weights = prune.matrices(model)
    mask = prune.layer_mask(weights, 0.5)
    last = list(mask)[-1]
    mask[last] = change(mask[last])
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=f"bool tensor of shape .* for {last}"):
        prune.apply_mask(model, mask)
    with pytest.raises(ValueError, match=f"bool tensor of shape .* for {last}"):
        prune.removed_energy(weights, mask)
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())


def test_a_share_of_no_energy_is_refused():
    with pytest.raises(ValueError, match="not all zero"):
        prune.removed_energy({"w": torch.zeros(4)}, {"w": torch.ones(4, dtype=torch.bool)})


def test_a_mask_makes_zeros_of_infinite_weights_too(model):
    model.blocks[0].up.weight.data[0, 0] = torch.inf
    prune.apply_mask(model, {"blocks.0.up.weight": torch.zeros(64, 16, dtype=torch.bool)})
    assert (model.blocks[0].up.weight == 0).all()


@pytest.mark.parametrize("keep", [[-1], [0, 0], [64], [True] * 64, torch.ones(64, dtype=torch.bool),
                                  [0.5], 3, None])
def test_channels_and_heads_are_kept_by_their_numbers_alone(model, keep):
    before = copy.deepcopy(model.state_dict())
    for shrink, part in ((prune.shrink_mlp, model.blocks[0]),
                         (prune.shrink_heads, model.blocks[0].attn)):
        with pytest.raises((ValueError, TypeError), match="keep="):
            shrink(part, keep)
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())


def test_lists_ranges_and_arrays_of_numbers_are_taken(model):
    prune.shrink_mlp(model.blocks[0], range(3))
    prune.shrink_heads(model.blocks[0].attn, np.array([1], dtype=np.uint8))
    assert model.blocks[0].up.out_features == 3
    assert model.blocks[0].attn.n_head == 1


def test_a_model_that_rounds_is_refused_and_a_compiled_one_comes_back(model, tmp_path):
    train_rounded(model, 4, 16)
    for call in (lambda: prune.save_pruned(model, tmp_path / "m"),
                 lambda: prune.shrink_mlp(model.blocks[0], [0])):
        with pytest.raises((ValueError, TypeError), match=r"stop_rounding\(model\)"):
            call()
    stop_rounding(model)
    prune.shrink_mlp(model.blocks[1], [5, 2])
    wrapped = torch.nn.Module()  # as torch.compile does
    wrapped._orig_mod = model
    prune.save_pruned(wrapped, tmp_path / "m", sparse=True)
    tokens = torch.arange(16)[None]
    assert torch.equal(prune.load_pruned(tmp_path / "m")(tokens), model(tokens))


def test_any_altered_or_missing_part_of_a_file_is_noticed_and_the_file_named(tmp_path):
    model = GPT(GPTConfig(vocab=4, context=4, n_layer=1, n_head=1, d_model=4))
    prune.apply_mask(model, prune.layer_mask(prune.matrices(model), 0.1))
    prune.save_pruned(model, file := tmp_path / "model", sparse=True, note="fact")
    whole = file.read_bytes()
    for place in (*range(0, len(whole), 9), len(whole) - 1):
        altered = bytearray(whole)
        altered[place] ^= 1 << place % 8
        for wrong in (bytes(altered), whole[:place]):
            file.write_bytes(wrong)
            with pytest.raises(ValueError, match=r"model .*save_pruned"):
                prune.load_pruned(file)
    with pytest.raises(FileNotFoundError):
        prune.load_pruned(tmp_path / "none")


def test_a_full_disk_leaves_the_older_model(model, tmp_path, monkeypatch):
    prune.save_pruned(model, file := tmp_path / "model")
    before = file.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        prune.save_pruned(GPT(model.config, seed=1), file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("facts", [{"config": "{}"}, {"columns": "{}"}, {"steps": 3},
                                   {"dtype": torch.int8}, {"dtype": torch.float16}])
def test_what_a_file_cannot_say_is_refused(model, tmp_path, facts):
    model.blocks[0].up.weight.data[0, 0] = 1e6  # beyond fp16
    with pytest.raises((ValueError, TypeError), match=r"expected|multiple values"):
        prune.save_pruned(model, tmp_path / "model", **facts)
    assert not list(tmp_path.iterdir())
