"""The course's GPT and its training step in a form that a GPU's compiler and graphs can take whole.

Weights and numbers are those of `helpers.transformer` (tests compare them); what differs is where
the work is done: rotations in real numbers, batches cut on the device, no waiting for a loss.
"""

from contextlib import contextmanager

import torch
from torch.nn import functional as F

from helpers.transformer.models import GPT, GPTConfig
from helpers.transformer.training import TrainConfig, wsd


def turn_of(seq: int, d_head: int, device, base: float = 1000.0):
    """Cosines and sines of each position's angles, (seq, d_head/2) each: `models.rotation`."""
    pair = torch.arange(0, d_head, 2, device=device)
    angle = torch.arange(seq, device=device)[:, None] * base ** (-pair / d_head)
    return angle.cos(), angle.sin()


def rotate(x, turn):
    """`models.rotate` in real numbers: x (..., seq, d_head), turn from `turn_of`; keeps x's type.

    The compiler fuses these few products with their neighbours; complex numbers it leaves alone.
    """
    (a, b), (cos, sin) = x.unflatten(-1, (-1, 2)).float().unbind(-1), turn
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


class FastGPT(GPT):
    """`GPT` with real rotations, for training alone: tokens (batch, seq) → logits."""

    def forward(self, tokens):
        batch, seq = tokens.shape
        n_head = self.config.n_head
        turn = turn_of(seq, self.config.d_model // n_head, tokens.device)
        x = self.wte(tokens)
        for block in self.blocks:
            qkv = block.attn.qkv(block.norm1(x)).view(batch, seq, 3, n_head, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (batch, n_head, seq, d_head)
            y = F.scaled_dot_product_attention(rotate(q, turn), rotate(k, turn), v, is_causal=True)
            x = x + block.attn.out(y.transpose(1, 2).reshape(batch, seq, -1))
            x = x + block.down(F.gelu(block.up(block.norm2(x))))
        return F.linear(self.norm(x), self.wte.weight)


class Run:
    """A training run that lives on the device: text, place in it, rate and loss, all as tensors.

    Each call of `step` takes one optimiser step and waits for nothing. `graph()` captures it, so
    that a step is one launch; `compile_` fuses the model first. Windows are dealt out once, in
    random order (the text is never repeated). bfloat16 products unless `low` is False.
    """

    def __init__(self, shape: GPTConfig, config: TrainConfig, text: torch.Tensor, *,
                 low: bool = True, fused: bool = True, compile_: bool = False):
        self.config, self.text, self.low = config, text, low
        device, seq = text.device, config.seq
        self.model = FastGPT(shape, config.seed).to(device)
        windows = (len(text) - 1) // seq
        if windows < config.n_steps * config.batch_size:
            raise ValueError(f"{len(text):,} tokens are too few for {config.D:,}: none is repeated")
        order = torch.randperm(windows, generator=torch.Generator().manual_seed(config.seed))
        self.starts = (order * seq).to(device)
        self.rates = config.lr * torch.tensor(
            [wsd(i, config.n_steps, config.warmup_steps, config.decay_steps)
             for i in range(config.n_steps)], device=device)
        self.at = torch.zeros((), dtype=torch.int64, device=device)  # the next step
        self.loss = torch.zeros((), device=device)
        on_gpu = device.type == "cuda"
        lr = torch.tensor(config.lr, device=device) if on_gpu else config.lr
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr, (0.9, config.beta2), weight_decay=0.0,
            fused=fused, capturable=on_gpu)
        self.forward = torch.compile(self.losses) if compile_ else self.losses
        self.replay = None

    def losses(self, windows):
        """Mean loss of windows (batch, seq + 1)."""
        with torch.autocast(windows.device.type, torch.bfloat16, enabled=self.low):
            logits = self.model(windows[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten())

    def windows(self):
        """The batch of the present step, (batch, seq + 1), cut out of the text on the device."""
        rows = self.at * self.config.batch_size + torch.arange(
            self.config.batch_size, device=self.text.device)
        places = self.starts[rows][:, None] + torch.arange(
            self.config.seq + 1, device=self.text.device)
        return self.text[places].long()

    def step(self) -> None:
        """One optimiser step: replayed if it was captured."""
        self.replay() if self.replay else self._step()

    def _step(self) -> None:
        rate = self.rates[self.at]
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].copy_(rate)
            else:
                group["lr"] = float(rate)
        self.optimizer.zero_grad(set_to_none=self.replay is None)
        loss = self.forward(self.windows())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip,
                                       foreach=True)
        self.optimizer.step()
        self.loss.copy_(loss.detach())
        self.at += 1

    def graph(self, n_warm: int = 3) -> None:
        """Capture the step as a CUDA graph after `n_warm` plain ones; nothing on a CPU."""
        if self.text.device.type != "cuda":
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(n_warm):
                self._step()
        torch.cuda.current_stream().wait_stream(side)
        captured = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(captured):
            self._step()
        self.replay = captured.replay

    def state(self) -> list[torch.Tensor]:
        """The live tensors that training changes: weights, moments, step counts, place."""
        moments = [t for s in self.optimizer.state.values() for t in s.values()
                   if isinstance(t, torch.Tensor)]
        return [*self.model.parameters(), *moments, self.at]

    @contextmanager
    def branch(self, rates: torch.Tensor):
        """Inside, the run goes on with other rates; afterwards it is where it was.

        So a cool-down is a branch of the constant-rate trunk (Hägele et al. 2024).
        """
        kept = [t.detach().clone() for t in self.state()]
        trunk = self.rates.clone()
        self.rates[:len(rates)].copy_(rates)
        try:
            yield
        finally:
            with torch.no_grad():
                for live, old in zip(self.state(), kept, strict=True):
                    live.copy_(old)
            self.rates.copy_(trunk)


@torch.no_grad()
def examine(model: GPT, windows: torch.Tensor, batch_size: int = 64) -> float:
    """Mean loss in nats per token over windows (n, seq + 1) on the model's device, in bfloat16.

    The logits are taken to float32, as `training.evaluate` does.
    """
    total = torch.zeros((), dtype=torch.float64, device=windows.device)
    low = windows.device.type == "cuda"
    for rows in windows.split(batch_size):
        with torch.autocast(windows.device.type, torch.bfloat16, enabled=low):
            logits = model(rows[:, :-1].long())
        total += F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten().long(),
                                 reduction="sum").double()
    return total.item() / (windows.shape[0] * (windows.shape[1] - 1))
