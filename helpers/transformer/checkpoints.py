"""Models and interrupted runs on disk: safetensors with config and hash, never pickle."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from helpers.transformer.models import GPT, GPTConfig
from helpers.transformer.training import TrainConfig, make_optimizer


def save_model(model: GPT, path: str | Path, **facts: str) -> None:
    """Write weights, config and `facts` (text) to one safetensors file."""
    _write(path, model.state_dict(), {"config": json.dumps(asdict(model.config)), **facts})


def load_model(path: str | Path, device: torch.device | str = "cpu") -> GPT:
    """Read a model that `save_model` wrote. Raises ValueError if the file is foreign or altered."""
    tensors, header = _read(path)
    model = GPT(GPTConfig(**json.loads(header["config"])))
    model.load_state_dict(tensors)
    return model.to(device)


def load_tokenised(path: str | Path) -> tuple[GPT, list[tuple[int, int]]]:
    """A model and its tokeniser's merges, both from one file.

    Raises ValueError if the file is foreign or altered, or holds no merges.
    """
    facts = header(path)
    if "merges" not in facts:
        raise ValueError(f"{path} holds no merges: expected a file of `make record TABLE=family`")
    return load_model(path), [tuple(pair) for pair in json.loads(facts["merges"])]


def save_run(path: str | Path, model: GPT, optimizer: torch.optim.Optimizer, config: TrainConfig,
             step: int, **facts: str) -> None:
    """Write all that a run needs to go on from `step`, the next one it would take, and `facts`."""
    state = {f"model.{name}": p for name, p in model.state_dict().items()}
    for i, moments in optimizer.state_dict()["state"].items():
        state |= {f"adam.{i}.{name}": tensor for name, tensor in moments.items()}
    _write(path, state, {"config": json.dumps(asdict(model.config)), "step": str(step),
                         "training": json.dumps(asdict(config)), **facts})


def load_run(path: str | Path, device: torch.device | str = "cpu"
             ) -> tuple[GPT, torch.optim.Optimizer, TrainConfig, int]:
    """Model, optimiser, config and next step of a run that `save_run` wrote.

    `run_steps(model, optimizer, batches, config, step, config.n_steps)` goes on; on one CPU its
    losses are those of an uninterrupted run, bit for bit. Raises ValueError if the file is foreign
    or altered.
    """
    tensors, header = _read(path)
    if "training" not in header:
        raise ValueError(f"{path} holds a model and no run: expected a file of save_run")
    parts = {"model": {}, "adam": {}}
    for name, tensor in tensors.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = tensor
    model = GPT(GPTConfig(**json.loads(header["config"])))
    model.load_state_dict(parts["model"])
    config = TrainConfig(**json.loads(header["training"]))
    optimizer = make_optimizer(model.to(device), config)
    state = {}
    for name, tensor in parts["adam"].items():
        i, moment = name.split(".", 1)
        state.setdefault(int(i), {})[moment] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return model, optimizer, config, int(header["step"])


def header(path: str | Path) -> dict[str, str]:
    """What the file says beside its tensors: config, hash, step, and the facts given to it."""
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {flat.dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def _write(path: str | Path, tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    """First beside `path`, then in its place: an interrupted write leaves the old file whole."""
    tensors = {name: p.detach().contiguous() for name, p in tensors.items()}
    beside = Path(f"{path}.part")
    save_file(tensors, beside, {**header, "sha256": _digest(tensors)})
    os.replace(beside, path)


def _read(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        if "config" not in header or "sha256" not in header:
            raise ValueError(f"{path} holds no config and hash: expected a file that "
                             "helpers.transformer.checkpoints wrote")
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if (found := _digest(tensors)) != header["sha256"]:
        raise ValueError(f"{path} was altered: its numbers have sha256 {found[:12]}…, its header "
                         f"says {header['sha256'][:12]}…")
    return tensors, header
