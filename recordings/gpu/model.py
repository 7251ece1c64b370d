"""A model that writes: the largest that all prose feeds four times, in 16 bits under 30 MB."""

import json

import torch

from helpers import corpora, data
from helpers.foundations.tokens import bpe_encode, bpe_train
from helpers.transformer import checkpoints
from helpers.transformer.flops import flops_per_token, n_params
from helpers.transformer.models import GPT, GPTConfig
from helpers.transformer.training import TrainConfig
from recordings.gpu.fast import Run, examine
from recordings.gpu.kit import Kit

VOCAB, EPOCHS, BATCH = 2048, 4, 32  # after four readings a further one is worth little: chapter 10
SHAPE = GPTConfig(vocab=VOCAB, context=256, n_layer=7, n_head=6, d_model=384)
TOY = GPTConfig(vocab=300, context=32, n_layer=1, n_head=2, d_model=16)


def model(kit: Kit) -> None:
    """Rows of gpu_model.csv, and models/gpt_writer.safetensors."""
    shape, epochs, batch = (TOY, 1, 2) if kit.toy else (SHAPE, EPOCHS, BATCH)
    asked = {"data": "prose", "d_model": shape.d_model, "n_layer": shape.n_layer,
             "vocab": shape.vocab, "epochs": epochs}
    if kit.has("model", asked):
        return
    raw = bytes(corpora.load("prose")[0][:2**15 if kit.toy else None])
    merges = bpe_train(raw, shape.vocab)
    if kit.toy:  # all the prose takes a while
        train = held = bpe_encode(raw, merges)
        tokens_per_byte = len(train) / len(raw)
    else:
        train, held, tokens_per_byte = corpora.tokenised(merges)
    seq = shape.context
    per_epoch = (len(train) - 1) // seq // batch

    def made():
        config = TrainConfig(lr=2e-3, n_steps=epochs * per_epoch, batch_size=batch, seq=seq,
                             warmup_steps=min(200, per_epoch // 2), decay_fraction=0.4)
        text = torch.from_numpy(train).repeat(epochs)[:config.D + 1 + seq].to(kit.device)
        run = Run(shape, config, text, low=not kit.toy, compile_=not kit.toy)
        run.graph()
        for _ in range(int(run.at), config.n_steps):
            run.step()
        windows = torch.from_numpy(data.windows(held, 50 if kit.toy else 1000, seq))
        loss = examine(run.model, windows.to(kit.device))
        plain = GPT(shape)
        plain.load_state_dict({name: w.cpu() for name, w in run.model.state_dict().items()})
        file = kit.folder / "models/gpt_writer.safetensors"
        file.parent.mkdir(exist_ok=True)
        checkpoints.save_model(plain.bfloat16(), file, commit=kit.facts["commit"],
                               torch=torch.__version__, merges=json.dumps(merges))
        N, N_total = n_params(shape)
        return {"N": N, "N_total": N_total, "D": config.D, "loss": loss,
                "C": float(config.D * flops_per_token(shape, seq)),
                "bpb": data.bits_per_byte(loss, tokens_per_byte), "lr": config.lr,
                "bytes": file.stat().st_size}

    kit.row("model", asked, made)
