"""Pruning: masks by magnitude, tuning under a mask, sparse files, and layers that really shrink."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from helpers.compress.packing import FILE, from_csr, index_type, read_file, to_csr, write_file
from helpers.compress.quantize import DENSE
from helpers.data import TokenBatches
from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need
from helpers.transformer.models import GPT, GPTConfig
from helpers.transformer.schedule import TrainConfig
from helpers.transformer.tensors import model_of, weights_of
from helpers.transformer.training import make_optimizer, run_steps

DENSITY = rules.number(0, 1)  # rule: a share to keep


def _weights(value):
    """Rule: finite tensors by name, at least one."""
    rules.each(rules.tensor(finite=True), least=1)(rules.a(dict)(value).values())
    return value


def _layers(*names):
    def rule(value):
        if all(type(getattr(value, name, None)) is nn.Linear for name in names):
            return value
        raise TypeError(f"expected linear layers {' and '.join(names)}, not parametrised: "
                        "quantize.stop_rounding(model) ends that")

    return rule


def _places(value):
    places = torch.from_numpy(rules.integers(1, low=0)(value))
    if len(places.unique()) < len(places):
        raise ValueError("expected each index once")
    return places


def _masks(given) -> str:
    """Need: each of the weights has a bool mask of its shape."""
    for name, w in given["weights"].items():
        keep = given["mask"].get(name)
        if not isinstance(keep, torch.Tensor) or keep.dtype != torch.bool or keep.shape != w.shape:
            return f"mask: expected a bool tensor of shape {tuple(w.shape)} for {name}"
    return ""


@accepts(model=rules.a(nn.Module))
def matrices(model: nn.Module) -> dict[str, torch.Tensor]:
    """The matrices inside the model's blocks by name: what pruning may touch.

    Embeddings (which are also the head) and norm gains stay whole. The tensors are detached, but
    share their memory with the model. Raises ValueError if the model has no such matrix.
    """
    found = {name: p.detach() for name, p in model.named_parameters()
             if name.startswith("blocks.") and p.ndim == 2}
    if not found:
        raise ValueError(f"{type(model).__name__} has no matrices in `blocks`")
    return found


@accepts(weights=_weights, density=DENSITY)
def magnitude_mask(weights, density):
    """True for the largest magnitudes of all tensors together (global magnitude pruning).

    weights: dict of tensors; density: share to keep, 0 … 1 → dict of bool tensors of the same
    shapes with round(density · n) True in total. Of equal magnitudes the first are kept.
    """
    if not 0 <= density <= 1:
        raise ValueError(f"density={density}: expected 0 … 1")
    sizes = torch.cat([w.abs().flatten() for w in weights.values()])
    order = sizes.argsort(descending=True, stable=True)
    keep = torch.zeros(len(sizes), dtype=torch.bool)
    keep[order[:round(density * len(sizes))]] = True
    parts = zip(weights, keep.split([w.numel() for w in weights.values()]), strict=True)
    return {name: part.view(weights[name].shape) for name, part in parts}


@accepts(weights=_weights, density=DENSITY)
def layer_mask(weights, density):
    """Magnitude pruning with the same density in each tensor; arguments as `magnitude_mask`."""
    return {name: magnitude_mask({name: w}, density)[name] for name, w in weights.items()}


@accepts(weights=_weights, density=DENSITY, rng=rules.a(np.random.Generator))
def random_mask(weights: dict, density: float, rng: np.random.Generator) -> dict:
    """A control: round(density · n) weights of each tensor, drawn from the numpy generator."""
    return {name: torch.from_numpy(rng.permutation(w.numel()) < round(density * w.numel()))
            .view(w.shape) for name, w in weights.items()}


@accepts(weights=_weights, n=rules.integer(), m=rules.integer(1), needs=need(
    lambda weights: all(w.ndim == 2 for w in weights.values()), "matrices"))
def nm_mask(weights, n, m):
    """True for the n largest magnitudes among every m neighbours of a row (N:M sparsity).

    weights: dict of matrices (rows, columns) → dict of bool tensors of the same shapes. Of equal
    magnitudes the first are kept. Raises ValueError if m does not divide the columns, or n > m.
    Source: Mishra et al. 2021 (arXiv:2104.08378).
    """
    mask = {}
    for name, w in weights.items():
        if w.shape[1] % m or not 0 <= n <= m:
            raise ValueError(f"{n} of every {m} does not fit rows of {w.shape[1]} weights")
        order = w.abs().reshape(-1, m).argsort(dim=1, descending=True, stable=True)
        keep = torch.zeros(order.shape, dtype=torch.bool)
        mask[name] = keep.scatter_(1, order[:, :n], True).view(w.shape)
    return mask


@accepts(model=rules.a(nn.Module), mask=rules.a(dict))
@torch.no_grad()
def apply_mask(model: nn.Module, mask: dict[str, torch.Tensor]) -> None:
    """Set the weights to zero, in place, where the mask of their name is False.

    Raises KeyError for a name that the model does not have, ValueError for masks that do not fit.
    """
    parameters = dict(model.named_parameters())
    if said := _masks({"weights": {name: parameters[name] for name in mask}, "mask": mask}):
        raise ValueError(said)
    for name, keep in mask.items():
        parameters[name].masked_fill_(~keep, 0)


@accepts(weights=_weights, mask=rules.a(dict), needs=(_masks, need(
    lambda weights: 0 < sum((w**2).sum() for w in weights.values()) < np.inf,
    "weights that are not all zero, nor too large to be squared")))
def removed_energy(weights, mask):
    """Share, 0 … 1, of the weights' energy Σ w² that the mask removes, of all tensors together."""
    removed = sum((w[~mask[name]] ** 2).sum() for name, w in weights.items())
    return float(removed / sum((w**2).sum() for w in weights.values()))


@accepts(model=rules.a(nn.Module), mask_of=rules.function, densities=rules.each(DENSITY),
         batches=rules.a(TokenBatches), config=rules.a(TrainConfig))
def tune(model, mask_of, densities, batches, config):
    """Prune a model in place, in stages, each followed by its share of `config.n_steps` steps.

    mask_of(weights, density) → mask; densities: one per stage, falling (one alone: one-shot;
    `(1.0,)` with `layer_mask`: no pruning); batches: `data.TokenBatches`; config: TrainConfig.
    After each step the mask of the stage is applied again. Returns the training losses in nats
    per token, one per step. Raises ValueError without a density or for one outside 0 … 1.
    """
    if not len(densities):
        raise ValueError("expected at least one density")
    optimizer, losses = make_optimizer(model, config), []
    for stage, density in enumerate(densities, 1):
        mask = mask_of(matrices(model), density)
        apply_mask(model, mask)
        stop = round(config.n_steps * stage / len(densities))
        losses += run_steps(model, optimizer, batches, config, len(losses), stop,
                            lambda _step, _loss, mask=mask: apply_mask(model, mask))
    return losses


@accepts(block=_layers("up", "down"))
def channel_scores(block):
    """Weight of each hidden MLP channel: norm of its row in `up` × norm of its column in `down`.

    block: has linear layers `up` (d_ff, d_model) and `down` (d_model, d_ff) → (d_ff,).
    """
    return block.up.weight.detach().norm(dim=1) * block.down.weight.detach().norm(dim=0)


@accepts(block=_layers("up", "down"), keep=_places, needs=need(
    lambda block, keep: bool((keep < len(block.up.weight)).all()), "channels that the block has"))
def shrink_mlp(block, keep):
    """Remove hidden MLP channels, in place: `up` loses rows and `down` the same columns.

    keep: indices (k,) of the channels that stay, in the order they get. The block computes what
    it would with the removed channels set to zero, in smaller products.
    """
    up, down = block.up.weight.detach()[keep], block.down.weight.detach()[:, keep]
    for layer, w in ((block.up, up), (block.down, down)):
        layer.weight = nn.Parameter(w.clone())
        layer.out_features, layer.in_features = w.shape


@accepts(attn=_layers("qkv", "out"))
def head_scores(attn):
    """Weight of each head: Frobenius norm of the map out · value that it writes, (n_head,).

    attn: has `n_head` and linear layers `qkv` (3 · n_head · d_head, d_model) and `out` (d_model,
    n_head · d_head). How well a head's queries and keys aim does not count.
    """
    values = attn.qkv.weight.detach().unflatten(0, (3, attn.n_head, -1))[2]
    out = attn.out.weight.detach().unflatten(1, (attn.n_head, -1))  # (d_model, n_head, d_head)
    return (out.transpose(0, 1) @ values).norm(dim=(1, 2))  # values: (n_head, d_head, d_model)


@accepts(attn=_layers("qkv", "out"), keep=_places, needs=need(
    lambda attn, keep: bool((keep < attn.n_head).all()), "heads that there are"))
def shrink_heads(attn, keep):
    """Remove attention heads, in place: `qkv` loses rows, `out` columns, and `n_head` falls.

    keep: indices (k,) of the heads that stay, in the order they get. Works with a `KVCache`,
    which then holds k heads. Raises ValueError if no head would stay.
    """
    if not len(keep):
        raise ValueError("at least one head must stay")
    qkv = attn.qkv.weight.detach().unflatten(0, (3, attn.n_head, -1))[:, keep].flatten(0, 2)
    out = attn.out.weight.detach().unflatten(1, (attn.n_head, -1))[:, keep].flatten(1)
    for layer, w in ((attn.qkv, qkv), (attn.out, out)):
        layer.weight = nn.Parameter(w.clone())
        layer.out_features, layer.in_features = w.shape
    attn.n_head = len(keep)


@accepts(model=rules.a(nn.Module), path=FILE, sparse=rules.a(bool), facts=rules.a(dict),
         dtype=rules.one_of(torch.float32, torch.float64, torch.float16, torch.bfloat16))
def save_pruned(model: GPT, path: str | Path, sparse: bool = False,
                dtype: torch.dtype = torch.float32, **facts: str) -> int:
    """Write a pruned GPT to one safetensors file; return the file's size in bytes.

    Shrunk layers have the shapes they have. With `sparse`, a matrix is stored as CSR, with the
    smallest column type that fits, if that takes fewer bytes. `dtype`: of the stored weights;
    `facts` (text) go into the header. An OSError leaves what stood at `path`. Raises ValueError
    for parametrised weights, and those that `dtype` cannot hold.
    """
    model = getattr(model, "_orig_mod", model)  # out of torch.compile's wrapper
    tensors, columns = {}, {}
    weights = {name: w.to(dtype) for name, w in weights_of(model).items()}
    for name, w in DENSE(weights).items():  # finite, also after rounding
        packed = to_csr(w, index_type(w.shape[1])) if sparse and w.ndim == 2 else {}
        if packed and sum(part.nbytes for part in packed.values()) < w.nbytes:
            columns[name] = w.shape[1]
            tensors |= {f"{name}.{part}": array for part, array in packed.items()}
        else:
            tensors[name] = w
    write_file(path, tensors, "config", asdict(model.config),
               dict(columns=json.dumps(columns), **facts))
    return Path(path).stat().st_size


@accepts(path=FILE)
def load_pruned(path: str | Path) -> GPT:
    """The GPT, in float32, of a file that `save_pruned` wrote; a ValueError names any other."""
    return read_file(path, "config", "save_pruned", _whole)


def _whole(tensors: dict, config: dict, facts: dict) -> GPT:
    for name, n_columns in json.loads(facts["columns"]).items():
        packed = {part: tensors.pop(f"{name}.{part}") for part in ("values", "columns", "starts")}
        tensors[name] = from_csr(packed, n_columns)
    return model_of(GPTConfig(**config), {name: w.float() for name, w in tensors.items()})
