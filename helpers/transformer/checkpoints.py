"""Models and interrupted runs on disk: safetensors with config and hash, never pickle."""

import hashlib
import json
import os
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need
from helpers.transformer.models import GPT, GPTConfig, plain_gpt
from helpers.transformer.tensors import model_of, weights_of
from helpers.transformer.training import TrainConfig, make_optimizer

OWN = ("config", "sha256", "training", "step")  # what a header says by itself
OPTIONS = ("betas", "eps", "weight_decay", "amsgrad", "maximize")  # of AdamW, besides the rate


def _facts(given: dict) -> dict[str, str]:
    """Rule: facts are texts, under names that the header does not use itself."""
    if taken := [name for name in OWN if name in given]:
        raise ValueError(f"expected other names than {', '.join(OWN)}, got {taken[0]}")
    for name, fact in given.items():
        if not isinstance(fact, str):
            raise TypeError(f"expected text, got {type(fact).__name__} for {name}")
        rules.text(fact)
    return given


def _device(value) -> torch.device:
    """Rule: a device that this machine has."""
    try:
        return torch.empty(0, device=rules.a(str, torch.device)(value)).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        said = str(error).splitlines()[0]
        raise ValueError(f"expected a device of this machine, such as cpu: {said}") from None


FILE = rules.a(str, os.PathLike)


@accepts(model=plain_gpt, path=FILE, facts=_facts)
def save_model(model: GPT, path: str | Path, **facts: str) -> None:
    """Write weights, config and `facts` (text) to one safetensors file.

    The file is written beside `path` first, so a full disk (OSError) leaves what stood there.
    Shrunk and compiled models are saved as what they are. Raises ValueError for a model that could
    not be read back: one whose weights are parametrised (`quantize.stop_rounding` ends that) or
    that is no plain GPT.
    """
    _write(path, weights_of(model), {"config": _json(model.config), **facts})


@accepts(path=FILE, device=_device)
def load_model(path: str | Path, device: torch.device | str = "cpu") -> GPT:
    """Read a model that `save_model` wrote. Raises ValueError if the file is foreign or altered."""
    tensors, header = _read(path)
    return _model(path, header, tensors).to(device)


@accepts(path=FILE)
def load_tokenised(path: str | Path) -> tuple[GPT, list[tuple[int, int]]]:
    """A model and its tokeniser's merges, both from one file.

    Raises ValueError if the file is foreign or altered, or holds no merges that fit the model.
    """
    tensors, facts = _read(path)
    if "merges" not in facts:
        raise ValueError(f"{path} holds no merges: expected a file of `make record TABLE=family`")
    model = _model(path, facts, tensors)
    try:
        merges = [(rules.integer(0, 255 + i)(a), rules.integer(0, 255 + i)(b))
                  for i, (a, b) in enumerate(json.loads(facts["merges"]))]
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its merges are no list of pairs of earlier tokens ({error}). "
                         "Save the model anew with merges=json.dumps(merges)") from None
    if 256 + len(merges) > model.config.vocab:
        raise ValueError(f"{path} has {len(merges)} merges, beyond its model's {model.config.vocab}"
                         " tokens: save the model anew with the merges it was trained on")
    return model, merges


@accepts(path=FILE, model=plain_gpt, optimizer=rules.a(torch.optim.Optimizer),
         config=rules.a(TrainConfig), step=rules.integer(0), facts=_facts,
         needs=need(lambda step, config: step <= config.n_steps, "a step of the run"))
def save_run(path: str | Path, model: GPT, optimizer: torch.optim.Optimizer, config: TrainConfig,
             step: int, **facts: str) -> None:
    """Write all that a run needs to go on from `step`, the next one it would take, and `facts`.

    Raises ValueError if the optimiser is not one that `make_optimizer(model, config)` would make,
    and for a model that `save_model` refuses; OSError leaves what stood at `path`.
    """
    _check_optimizer(optimizer, model, config)
    state = {f"model.{name}": p for name, p in weights_of(model).items()}
    for i, moments in optimizer.state_dict()["state"].items():
        state |= {f"adam.{i}.{name}": tensor for name, tensor in moments.items()}
    _write(path, state, {"config": _json(model.config), "step": str(step),
                         "training": _json(config), **facts})


@accepts(path=FILE, device=_device)
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
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    model = _model(path, header, parts["model"]).to(device)
    config = _config(path, TrainConfig, header["training"])
    step, optimizer, state = header.get("step", ""), make_optimizer(model, config), {}
    for name, tensor in parts["adam"].items():
        i, _, moment = name.partition(".")
        state.setdefault(i, {})[moment] = tensor
    shapes = {str(i): {"step": (), "exp_avg": p.shape, "exp_avg_sq": p.shape}
              for i, p in enumerate(model.parameters())}
    fits = all(shapes.get(i) == {moment: tensor.shape for moment, tensor in moments.items()}
               for i, moments in state.items())
    steps = map(str, range(config.n_steps + 1))
    if not fits or len(parts) > 2 or step not in steps:
        raise ValueError(f"{path}: its optimiser's state or its step ({step!r}) does not fit its "
                         "model and config. Delete it and begin the run anew")
    state = {int(i): moments for i, moments in state.items()}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return model, optimizer, config, int(step)


@accepts(path=FILE)
def header(path: str | Path) -> dict[str, str]:
    """What the file says beside its tensors: config, hash, step, and the facts given to it.

    Raises ValueError if the file is foreign or cut short; its numbers are not looked at.
    """
    return _open(path, numbers=False)[1]


def _check_optimizer(optimizer, model: GPT, config: TrainConfig) -> None:
    plain = make_optimizer(model, config)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    if held != [id(p) for p in model.parameters()]:
        raise ValueError("the optimiser does not hold this model's parameters: make it anew "
                         "after the model was shrunk or altered")
    if type(optimizer) is not type(plain) or any(
            group[name] != plain.defaults[name] for group in optimizer.param_groups
            for name in OPTIONS):
        raise ValueError("the optimiser could not be read back: expected one of "
                         "training.make_optimizer(model, config)")


def _json(config) -> str:
    return json.dumps(asdict(config), default=lambda number: number.item())  # numpy's


def _config(path, kind: type, text: str):
    """A config out of a header. Raises ValueError that names the file."""
    try:
        found = json.loads(text)
        if set(found) != (names := {field.name for field in fields(kind)}):
            raise ValueError(f"it has the fields {sorted(found)}: expected {sorted(names)}")
        return kind(**found)
    except (TypeError, ValueError, RecursionError, ArithmeticError) as error:
        raise ValueError(f"{path} holds no {kind.__name__} that can be read ({error}). It was "
                         "written by another version: make it anew") from None


def _model(path, header: dict, tensors: dict) -> GPT:
    config = _config(path, GPTConfig, header["config"])
    try:
        return model_of(config, tensors)
    except ValueError as error:
        raise ValueError(f"{path} does not hold the model of its config ({error}). "
                         "Make it anew") from None


def _digest(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {flat.dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(flat.view(torch.uint8).numpy())
    digest.update("".join(f"\n{name}\n{header[name]}" for name in sorted(header)).encode())
    return digest.hexdigest()


def _write(path: str | Path, tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    """First beside `path`, then in its place: an interrupted write leaves the old file whole."""
    tensors = {name: p.detach().contiguous() for name, p in tensors.items()}
    beside = Path(f"{path}.part")
    try:
        beside.touch()  # says what stands in the way, if anything does
        save_file(tensors, beside, {**header, "sha256": _digest(tensors, header)})
        os.replace(beside, path)
    except SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}") from error
    finally:
        beside.unlink(missing_ok=True)


def _read(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    tensors, header = _open(path)
    said = header["sha256"]
    rest = {name: text for name, text in header.items() if name != "sha256"}
    # the models under data/models are older than the header's part in the sum
    if said not in (found := _digest(tensors, rest), _digest(tensors, {})):
        raise ValueError(f"{path} was altered: its content has sha256 {found[:12]}…, its header "
                         f"says {said[:12]}…. Make it anew, or take it from where it came")
    return tensors, header


def _open(path: str | Path, numbers: bool = True) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors, if wanted, and header. Raises ValueError for what is no whole file of ours."""
    if not Path(path).is_file() and Path(path).exists():
        raise ValueError(f"{path} is a folder or device: expected a file of save_model or save_run")
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            if "config" not in header or "sha256" not in header:
                raise ValueError(f"{path} holds no config and hash: expected a file that "
                                 "helpers.transformer.checkpoints wrote")
            return {name: file.get_tensor(name) for name in file.keys() if numbers}, header
    except SafetensorError as error:
        raise ValueError(f"{path} is cut short or no safetensors file ({error}). Delete it and "
                         "make it anew, or take it from where it came") from error
