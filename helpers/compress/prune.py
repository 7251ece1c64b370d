"""Pruning: masks by magnitude, sparse storage, and layers that really shrink."""

import numpy as np
import torch
from torch import nn


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
