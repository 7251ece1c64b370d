"""Pruning: masks by magnitude, tuning under a mask, sparse files, and layers that really shrink."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from helpers.transformer.models import GPT, GPTConfig
from helpers.transformer.training import make_optimizer, run_steps


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


def magnitude_mask(weights, density):
    """True for the largest magnitudes of all tensors together (global magnitude pruning).

    weights: dict of tensors; density: share to keep, 0 … 1 → dict of bool tensors of the same
    shapes with round(density · n) True in total. Of equal magnitudes the first are kept. Raises
    ValueError for a density outside 0 … 1.
    """
    if not 0 <= density <= 1:
        raise ValueError(f"density={density}: expected 0 … 1")
    sizes = torch.cat([w.abs().flatten() for w in weights.values()])
    order = sizes.argsort(descending=True, stable=True)
    keep = torch.zeros(len(sizes), dtype=torch.bool)
    keep[order[:round(density * len(sizes))]] = True
    parts = zip(weights, keep.split([w.numel() for w in weights.values()]), strict=True)
    return {name: part.view(weights[name].shape) for name, part in parts}


def layer_mask(weights, density):
    """Magnitude pruning with the same density in each tensor; arguments as `magnitude_mask`."""
    return {name: magnitude_mask({name: w}, density)[name] for name, w in weights.items()}


def random_mask(weights: dict, density: float, rng: np.random.Generator) -> dict:
    """A control: round(density · n) weights of each tensor, drawn from the numpy generator."""
    if not 0 <= density <= 1:
        raise ValueError(f"density={density}: expected 0 … 1")
    return {name: torch.from_numpy(rng.permutation(w.numel()) < round(density * w.numel()))
            .view(w.shape) for name, w in weights.items()}


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


@torch.no_grad()
def apply_mask(model: nn.Module, mask: dict[str, torch.Tensor]) -> None:
    """Set the weights to zero, in place, where the mask of their name is False.

    Raises KeyError for a name that the model does not have.
    """
    parameters = dict(model.named_parameters())
    for name, keep in mask.items():
        parameters[name].mul_(keep)


def removed_energy(weights, mask):
    """Share of the weights' energy Σ w² that the mask removes, 0 … 1, all tensors together."""
    removed = sum((w[~mask[name]] ** 2).sum() for name, w in weights.items())
    return float(removed / sum((w**2).sum() for w in weights.values()))


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


def to_csr(w, index=torch.int32):
    """Compressed sparse rows of a matrix: its non-zero values, their columns, each row's start.

    w: (rows, columns) → dict of `values` (nnz,), `columns` (nnz,) of dtype `index`, and `starts`
    (rows + 1,) int32: row i holds values[starts[i]:starts[i + 1]]. Raises ValueError if a column
    number does not fit into `index`.
    """
    if w.shape[1] - 1 > torch.iinfo(index).max:
        raise ValueError(f"{w.shape[1]} columns do not fit into {index}")
    rows, columns = w.nonzero(as_tuple=True)
    starts = torch.zeros(len(w) + 1, dtype=torch.int32)
    starts[1:] = torch.bincount(rows, minlength=len(w)).cumsum(0)
    return {"values": w[rows, columns], "columns": columns.to(index), "starts": starts}


def from_csr(packed, n_columns):
    """The dense matrix (rows, n_columns) that `to_csr` packed."""
    counts = packed["starts"].diff().long()
    rows = torch.repeat_interleave(torch.arange(len(counts)), counts)
    w = packed["values"].new_zeros(len(counts), n_columns)
    w[rows, packed["columns"].long()] = packed["values"]
    return w


def index_type(n_columns: int) -> torch.dtype:
    """The smallest integer type that holds the numbers of so many columns."""
    fits = (t for t in (torch.uint8, torch.int16) if n_columns - 1 <= torch.iinfo(t).max)
    return next(fits, torch.int32)


def channel_scores(block):
    """Weight of each hidden MLP channel: norm of its row in `up` × norm of its column in `down`.

    block: has linear layers `up` (d_ff, d_model) and `down` (d_model, d_ff) → (d_ff,).
    """
    return block.up.weight.detach().norm(dim=1) * block.down.weight.detach().norm(dim=0)


def shrink_mlp(block, keep):
    """Remove hidden MLP channels, in place: `up` loses rows and `down` the same columns.

    keep: indices (k,) of the channels that stay, in the order they get. The block computes what
    it would with the removed channels set to zero, in smaller products.
    """
    up, down = block.up.weight.detach()[keep], block.down.weight.detach()[:, keep]
    for layer, w in ((block.up, up), (block.down, down)):
        layer.weight = nn.Parameter(w.clone())
        layer.out_features, layer.in_features = w.shape


def head_scores(attn):
    """Weight of each head: Frobenius norm of the map out · value that it writes, (n_head,).

    attn: has `n_head` and linear layers `qkv` (3 · n_head · d_head, d_model) and `out` (d_model,
    n_head · d_head). How well a head's queries and keys aim does not count.
    """
    values = attn.qkv.weight.detach().unflatten(0, (3, attn.n_head, -1))[2]
    out = attn.out.weight.detach().unflatten(1, (attn.n_head, -1))  # (d_model, n_head, d_head)
    return (out.transpose(0, 1) @ values).norm(dim=(1, 2))  # values: (n_head, d_head, d_model)


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


def save_pruned(model: GPT, path: str | Path, sparse: bool = False,
                dtype: torch.dtype = torch.float32, **facts: str) -> int:
    """Write a pruned GPT to one safetensors file; return the file's size in bytes.

    Shrunk layers have the shapes they have. With `sparse`, a block matrix is stored as CSR, with
    the smallest column type that fits, if that takes fewer bytes than the whole matrix. `dtype`
    is that of the stored weights. `facts` (text) go into the header.
    """
    tensors, columns = {}, {}
    for name, w in model.state_dict().items():
        w = w.to(dtype).contiguous()
        packed = to_csr(w, index_type(w.shape[1])) if name in matrices(model) and sparse else {}
        if packed and sum(part.nbytes for part in packed.values()) < w.nbytes:
            columns[name] = w.shape[1]
            tensors |= {f"{name}.{part}": array for part, array in packed.items()}
        else:
            tensors[name] = w
    save_file(tensors, path, {**facts, "config": json.dumps(asdict(model.config)),
                              "columns": json.dumps(columns)})
    return Path(path).stat().st_size


def load_pruned(path: str | Path) -> GPT:
    """The GPT, in float32, of a file that `save_pruned` wrote. Raises ValueError for another."""
    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        if not {"config", "columns"} <= header.keys():
            raise ValueError(f"{path} was not written by save_pruned")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    for name, n_columns in json.loads(header["columns"]).items():
        packed = {part: tensors.pop(f"{name}.{part}") for part in ("values", "columns", "starts")}
        tensors[name] = from_csr(packed, n_columns)
    model = GPT(GPTConfig(**json.loads(header["config"])))
    d_head = model.config.d_model // model.config.n_head
    for i, block in enumerate(model.blocks):
        shrink_mlp(block, torch.arange(len(tensors[f"blocks.{i}.up.weight"])))
        n_head = tensors[f"blocks.{i}.attn.out.weight"].shape[1] // d_head
        shrink_heads(block.attn, torch.arange(n_head))
    model.load_state_dict(tensors)
    return model
