"""Masks keep the right weights, sparse storage loses nothing, and shrinking changes no output."""

import copy

import numpy as np
import pytest
import torch
from scipy import sparse

from helpers.compress import prune
from helpers.models import GPT, GPTConfig


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
    from helpers.models import generate

    for block in model.blocks:
        prune.shrink_mlp(block, torch.arange(8))
    model(torch.arange(8)[None]).sum().backward()
    assert model.blocks[0].up.weight.grad.shape == (8, 16)
    assert len(generate(model, [1, 2], 5, np.random.default_rng(0))) == 7
