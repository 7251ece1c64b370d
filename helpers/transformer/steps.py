"""One training step: attention and loss with gradients of their own, accumulation, averaging."""

import functools

import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from helpers.foundations import rules
from helpers.foundations.accepts import accepts, need
from helpers.transformer.models import _check_ids, a_gpt
from helpers.transformer.schedule import TrainConfig


class AttentionBF16(torch.autograd.Function):
    """Causal attention of q, k, v (n, seq, d_head), q already scaled: bfloat16 matrix products.

    By the formula of `attention.attention`; softmax and its gradient stay in float32. Returns
    bfloat16.
    """

    @staticmethod
    def forward(ctx, q, k, v):
        q, k, v = q.bfloat16(), k.bfloat16(), v.bfloat16()
        future = torch.full(q.shape[1:2] * 2, -1e9, device=q.device).triu(1)
        w = torch.bmm(q, k.mT).float().add_(future)
        torch.softmax(w, -1, out=w)  # the weights, where the scores stood
        rounded = w.bfloat16()
        ctx.save_for_backward(q, k, v, w, rounded)
        return torch.bmm(rounded, v)

    @staticmethod
    def backward(ctx, dy):
        q, k, v, w, rounded = ctx.saved_tensors
        dy = dy.bfloat16()
        wdw = torch.bmm(dy, v.mT).float().mul_(w)
        ds = wdw.addcmul_(w, wdw.sum(-1, keepdim=True), value=-1).bfloat16()  # w (dw − Σ w dw)
        return torch.bmm(ds, k), torch.bmm(ds.mT, q), torch.bmm(rounded.mT, dy)


class CrossEntropy(torch.autograd.Function):
    """Mean loss in nats of logits (n, vocab) against token ids (n,), in float32.

    The gradient is (p − onehot) / n, written where the probabilities p stood. A probability below
    1e-37 counts as 1e-37, so that the loss stays finite.
    """

    @staticmethod
    def forward(ctx, logits, targets):
        p, ctx.dtype = logits.float().softmax(-1), logits.dtype
        ctx.save_for_backward(p, targets)
        return -p.gather(1, targets[:, None]).clamp(min=1e-37).log().mean()

    @staticmethod
    def backward(ctx, dloss):
        p, targets = ctx.saved_tensors
        p.scatter_add_(1, targets[:, None], p.new_full((len(p), 1), -1.0))
        return p.mul_(dloss / len(p)).to(ctx.dtype), None


@accepts(q=rules.tensor(), k=rules.tensor(), v=rules.tensor(), is_causal=rules.anything,
         needs=need(lambda q, k, v, is_causal: q.ndim == k.ndim == 4 and k.shape == v.shape
                    and (*q.shape[:2], q.shape[3]) == (*k.shape[:2], k.shape[3])
                    and (q.shape == k.shape or not is_causal),
                    "equal shapes (batch, n_head, seq, d_head)"))
def fast_attention(q, k, v, is_causal=True):
    """`scaled_dot_product_attention`, by `AttentionBF16` where that is faster: CPU with autocast.

    q, k, v (batch, n_head, seq, d_head) → the same shape. Unless `is_causal`, k and v may be longer
    than q. Raises ValueError for other shapes.
    """
    if q.device.type != "cpu" or not is_causal or not torch.is_autocast_enabled("cpu"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)
    flat = (x.reshape(-1, *x.shape[-2:]) for x in (q * q.shape[-1] ** -0.5, k, v))
    return AttentionBF16.apply(*flat).view(q.shape)


def _ids(value):
    """Rule: a tensor of whole numbers → int64."""
    value = rules.tensor(floating=False)(value)
    if value.dtype == torch.bool:
        raise TypeError("expected token ids, got bool")
    return value.long()


@accepts(logits=rules.tensor(), targets=_ids, needs=need(
    lambda logits, targets: logits.ndim == 2 and targets.shape == logits.shape[:1]
    and logits.numel() > 0, "logits (n, vocab) and one target for each row, (n,)"))
def token_loss(logits, targets):
    """Mean loss in nats of logits (n, vocab): by `CrossEntropy` on a CPU, where that is faster.

    Raises ValueError for no targets, a wrong number of them, or (looked at on a CPU alone) an id
    outside the vocabulary.
    """
    _check_ids(targets, logits.shape[1])
    on_cpu = logits.device.type == "cpu"
    return (CrossEntropy.apply if on_cpu else F.cross_entropy)(logits, targets)


@accepts(model=rules.a(nn.Module), tokens=_ids, config=rules.a(TrainConfig), needs=(
    need(lambda tokens: tokens.ndim == 2 and tokens.shape[1] > 1, "windows (batch, seq + 1)"),
    need(lambda tokens, config: len(tokens) >= config.n_micro, "at least n_micro windows")))
def accumulate(model, tokens, config):
    """Mean loss of a batch (batch, seq + 1); its gradient is added to the weights' `grad`.

    One of `n_micro` parts at a time: activations of one part alone are held. Nats per token. Raises
    ValueError for fewer windows than parts, or windows without a next token.
    """
    total = 0.0
    for part in tokens.tensor_split(config.n_micro):
        low = config.dtype == "bfloat16"
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=low):
            logits = model(part[:, :-1])
        loss = token_loss(logits.flatten(0, 1), part[:, 1:].flatten())
        share = len(part) / len(tokens)  # so that unequal parts count by their size
        (share * loss).backward()
        total += share * loss.detach()
    return total


@accepts(tensors=rules.each(rules.tensor(), 1))
def average(tensors):
    """Replace each tensor by its mean over all processes: one message, not one per tensor.

    Raises torch's ValueError outside a process group.
    """
    message = torch.cat([t.flatten() for t in tensors])
    dist.all_reduce(message)  # the sum, in every process
    message /= dist.get_world_size()
    for t, mean in zip(tensors, message.split([t.numel() for t in tensors]), strict=True):
        t.copy_(mean.view_as(t))


@accepts(model=a_gpt, config=rules.a(TrainConfig))
def prepare(model, config):
    """Give the model's blocks the attention and the recomputation that the config asks for."""
    for block in model.blocks:
        block.attn.mix = fast_attention
        block.__dict__.pop("forward", None)  # an earlier run's
        if config.recompute:
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


@accepts(g_small=rules.number(0), g_big=rules.number(0), b_small=rules.number(above=0),
         b_big=rules.number(above=0), needs=(
             need(lambda b_small, b_big: b_small < b_big, "b_small below b_big"),
             need(lambda g_small, g_big: g_big <= g_small, "a large batch's gradient that is no "
                  "longer than a small one's: average over more batches"),
             need(lambda g_small, g_big, b_small, b_big: b_big * g_big > b_small * g_small,
                  "a signal, b_big · g_big > b_small · g_small: average over more batches")))
def noise_scale(g_small, g_big, b_small, b_big):
    """Batch size at which a gradient's noise equals its signal, in units of b (windows or tokens).

    g_small and g_big: mean squared norms of gradients over batches of b_small and b_big. Signal
    and noise are unbiased estimates, their ratio is not. Raises ValueError unless b_small < b_big,
    and where an estimate is negative or the signal zero: chance, in too few gradients. Source:
    McCandlish et al. 2018 (arXiv:1812.06162), appendix A.
    """
    signal = (b_big * g_big - b_small * g_small) / (b_big - b_small)  # |G|² of the true gradient
    noise = (g_small - g_big) / (1 / b_small - 1 / b_big)  # summed variance of one item's
    return noise / signal
