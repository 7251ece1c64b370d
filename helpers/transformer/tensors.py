"""A GPT out of its tensors, whole or shrunk, and the tensors out of a GPT."""

import torch
from torch import nn

from helpers.foundations import rules
from helpers.foundations.accepts import accepts
from helpers.transformer.models import GPT, GPTConfig, a_gpt


@accepts(config=rules.a(GPTConfig), tensors=rules.a(dict))
def model_of(config: GPTConfig, tensors: dict[str, torch.Tensor]) -> GPT:
    """The GPT with these weights, named as in its `state_dict`, copied, each in its own dtype.

    Each block gets the heads and MLP channels that its tensors have: of a shrunk model fewer than
    the config says. Raises ValueError that names a tensor which is missing, unknown, no
    floating-point numbers, or of another shape than the others ask for.
    """
    width = _check_shapes(config, tensors)
    model = GPT(config)
    for name, p in model.named_parameters():
        p.data = tensors[name].detach().clone()
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = layer.weight.shape
    for block in model.blocks:
        block.attn.n_head = block.attn.out.in_features // width
    return model


@accepts(model=a_gpt)
def weights_of(model: GPT) -> dict[str, torch.Tensor]:
    """The model's state dict under a plain GPT's names, from which `model_of` makes it again.

    Blocks that `torch.compile` wrapped lose the wrapper's names. Raises ValueError for a model
    that `model_of` could not make: parametrised, or with other tensors than a GPT's.
    """
    weights = {name.replace("_orig_mod.", ""): p for name, p in model.state_dict().items()}
    if strange := next((name for name in weights if "parametrizations." in name), None):
        raise ValueError(f"the model's weights are parametrised ({strange}) and could not be read "
                         "back: call quantize.stop_rounding(model) before it is saved")
    try:
        _check_shapes(model.config, weights)
    except ValueError as error:
        raise ValueError(f"the model could not be read back: {error}") from None
    return weights


def _check_shapes(config: GPTConfig, tensors: dict[str, torch.Tensor]) -> int:
    """A head's width. Raises ValueError unless the tensors are a GPT's, whole or shrunk."""
    n, d, d_head = config.n_layer, config.d_model, config.d_model // config.n_head
    if len(tensors) != 2 + 6 * n:
        raise ValueError(f"{len(tensors)} tensors: expected {2 + 6 * n} for n_layer={n}")
    sizes = {name: (*tensor.shape, 0, 0) for name, tensor in tensors.items()}
    shapes = {"wte": (config.vocab, d), "norm": (d,)}
    for block in (f"blocks.{i}." for i in range(n)):
        d_ff, heads = (sizes.get(f"{block}{name}.weight", (0, 0))[axis]
                       for name, axis in (("up", 0), ("attn.out", 1)))
        heads = max(1, heads // d_head) * d_head
        shapes |= {f"{block}norm1": (d,), f"{block}attn.qkv": (3 * heads, d),
                   f"{block}attn.out": (d, heads), f"{block}norm2": (d,),
                   f"{block}up": (d_ff, d), f"{block}down": (d, d_ff)}
    for name, shape in shapes.items():
        tensor = tensors.get(f"{name}.weight")
        if tensor is None or tuple(tensor.shape) != shape or not tensor.is_floating_point():
            found = "missing" if tensor is None else f"{tensor.dtype} of {tuple(tensor.shape)}"
            raise ValueError(f"{name}.weight is {found}: expected floating point of {shape}, "
                             f"as in GPT({config})")
    return d_head
