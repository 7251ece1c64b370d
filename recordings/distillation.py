"""The recorded runs of chapter 13: students, stacks of compressions, and texts compressed.

`distil`, `stack` and `codec` name a part; with `backwards` the students are taken from the end, so
that two processes can share them.
"""

import argparse
import bz2
import gzip
import lzma
import sys
import time
from dataclasses import replace

import torch
import zstandard
from safetensors.torch import save

from helpers import corpora, data, runtime
from helpers.compress import codec, distil, entropy, prune
from helpers.compress.quantize import dequantize_state, quantize_state
from helpers.foundations.tokens import bpe_decode, bpe_encode
from helpers.scaling import ledger
from helpers.transformer import checkpoints, training
from helpers.transformer.flops import flops_per_token, n_params
from helpers.transformer.models import GPT
from recordings import one_of
from recordings.family import KEPT, TUNE, config, shape, trained

N_WINDOWS, SEQ = 500, 128
POOL = 2**17  # training tokens of the data-poor students
STUDENTS = [  # width, steps, teacher's width (0: from scratch), weight, temperature, pool, seed
    (32, 768, 0, 0.0, 1, 0, 0), (32, 768, 128, 0.9, 1, 0, 0), (32, 768, 128, 0.5, 1, 0, 0),
    (32, 768, 128, 0.9, 2, 0, 0), (32, 768, 0, 0.0, 1, 0, 1), (32, 768, 128, 0.9, 1, 0, 1),
    (64, 768, 0, 0.0, 1, POOL, 0), (64, 768, 128, 0.9, 1, POOL, 0), (64, 768, 0, 0.0, 1, 0, 0),
    (64, 768, 128, 0.9, 1, 0, 0), (32, 768, 320, 0.9, 1, 0, 0), (32, 1536, 0, 0.0, 1, 0, 0),
    (32, 1536, 128, 0.9, 1, 0, 0), (32, 3072, 128, 0.9, 1, 0, 0)]
FAMILY = [(32, 3072), (64, 3072), (128, 3072), (320, 1536)]  # rows that need no training here
DENSE = [(128, 3456), (96, 5671), (64, 11059)]  # of equal total FLOPs
DENSITIES = (0.7, 0.5)  # of the course's model, pruned and tuned for TUNE steps
FORMATS = {"fp32": None, "int8": (8, "row"), "int4": (4, 32)}  # bits; weights to a scale
CODEC = [("gpt_small", "fp32"), ("gpt_small", "int8"), ("gpt_small", "int4"),
         ("gpt_prose", "fp32"), ("gpt_prose", "int8"), ("gpt_prose", "int4")]
RECIPES = {"distillation.csv": "0fb4838909671888", "stack.csv": "91a5d84bbe532041",
           "codec.csv": "fefbcd4b59f43224"}  # of the rows, see `ledger.key`


def load(d_model: int, n_steps: int):
    """A model of the family and its merges. Raises FileNotFoundError if it was not trained."""
    return checkpoints.load_tokenised(trained(d_model, n_steps))


def once(name: str, wanted: dict, make) -> None:
    """Append the row {key, wanted, what `make` returns, provenance} unless its key is there."""
    path, key = data.DATA / "sweeps" / name, ledger.key(wanted, RECIPES[name])
    if key in ledger.keys(path):
        return
    begin = time.perf_counter()
    made = make()
    row = {"key": key, **wanted, **made, "seconds": round(time.perf_counter() - begin, 1),
           "device": runtime.device_name(torch.device("cpu")), "torch": torch.__version__,
           "commit": training.commit()}
    ledger.append(path, row)
    sys.stderr.write(f"{name}: {' '.join(str(v) for v in list(row.values())[1:14])}\n")


def examine(model: GPT, text) -> dict:
    """Held-out loss and bits per byte of a model."""
    loss = training.evaluate(model, data.windows(text[1], N_WINDOWS, SEQ))
    return {"loss": loss, "bpb": data.bits_per_byte(loss, text[2])}


def student(wanted: dict, text) -> dict:
    """Train one student, or read it where the family has it."""
    d_model, n_steps, pool = wanted["d_model"], wanted["n_steps"], wanted["pool"]
    teacher, run = wanted["teacher"], replace(config(d_model, n_steps), seed=wanted["seed"])
    D = run.D
    if wanted["what"] == "family":
        model = load(d_model, n_steps)[0]
    else:
        model = GPT(shape(d_model), seed=run.seed)
        tokens = text[0][:pool] if pool else text[0]
        batches = data.TokenBatches(tokens, run.batch_size, run.seq, seed=run.seed)
        if teacher:
            guide = load(teacher, dict(FAMILY)[teacher])[0]
            distil.distil(model, guide, batches, run, wanted["weight"], wanted["temperature"])
        else:
            training.run_steps(model, training.make_optimizer(model, run), batches, run, 0, n_steps)
    N, N_total = n_params(model.config)
    per_token = flops_per_token(shape(teacher), SEQ) / 3 if teacher else 0  # forward alone
    return {"n_layer": model.config.n_layer, "N": N, "N_total": N_total, "D": D,
            "C": float(D * flops_per_token(model.config, SEQ)), "C_teacher": float(D * per_token),
            **examine(model, text), "lr": run.lr, "dtype": run.dtype}


def distillation(order: int = 1) -> None:
    """Write `distillation.csv`: students from scratch and distilled, and their teachers."""
    text = corpora.tokenised(load(128, 3072)[1])
    names = ("d_model", "n_steps", "teacher", "weight", "temperature", "pool", "seed")
    rows = [("family", d, n, 0, 0.0, 1, 0, 0) for d, n in FAMILY]
    rows += [("distilled" if s[2] else "scratch", *s) for s in STUDENTS]
    for row in rows[::order]:
        wanted = dict(zip(("what", *names), row, strict=True))
        once("distillation.csv", wanted, lambda wanted=wanted: student(wanted, text))


def packed(model: GPT, merges: list, form: str) -> tuple[GPT, int]:
    """The model as it comes out of its smallest file in a format, and the bytes of that file."""
    if FORMATS[form] is None:
        return model, len(save({**model.state_dict(), "merges": torch.tensor(merges).short()}))
    state = quantize_state(model.state_dict(), *FORMATS[form], symmetric=True)
    blob = entropy.pack_model(model.config, state, merges)
    return entropy.unpack_model(blob)[0], len(blob)


def stack() -> None:
    """Write `stack.csv`: dense and pruned models of equal total FLOPs, quantised and coded."""
    merges = load(128, 3072)[1]
    text = corpora.tokenised(merges)
    shared = {}

    def tuned(density: float) -> GPT:
        if density not in shared:
            shared[density] = load(128, 3072)[0]
            run = replace(config(128, TUNE), lr=1e-3, decay_fraction=0.8, seed=1)
            prune.tune(shared[density], prune.magnitude_mask, (density,),
                       data.TokenBatches(text[0], run.batch_size, run.seq, seed=1), run)
        return shared[density]

    def make(d_model: int, n_steps: int, density: float, form: str) -> dict:
        model = load(d_model, n_steps)[0] if density == 1 else tuned(density)
        loaded, size = packed(model, merges, form)
        D = n_steps * 16 * SEQ
        state = quantize_state(model.state_dict(), *(FORMATS[form] or (8, "row")), symmetric=True)
        same = dequantize_state(state) if FORMATS[form] else model.state_dict()
        assert all(torch.equal(w, same[name]) for name, w in loaded.state_dict().items()
                   if w.ndim == 2)
        return {"N": n_params(model.config)[0], "N_total": n_params(model.config)[1],
                "C": float(D * flops_per_token(model.config, SEQ)), **examine(loaded, text),
                "bytes": size, "dtype": "bfloat16"}

    rows = [(d, n, 1.0) for d, n in DENSE] + [(128, 3072 + TUNE, s) for s in DENSITIES]
    for d_model, n_steps, density in rows:
        for form in FORMATS:
            wanted = {"d_model": d_model, "n_steps": n_steps, "density": density, "format": form,
                      "seed": 0}
            once("stack.csv", wanted, lambda w=wanted: make(*list(w.values())[:4]))


def archive(what: str, train: bytes, held_out: bytes) -> int:
    """Bytes of `held_out` under a general compressor; `primed`: after it has read `train`."""
    xz = lambda text: len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))
    return {"gzip -9": lambda: len(gzip.compress(held_out, 9)),
            "bz2 -9": lambda: len(bz2.compress(held_out, 9)),
            "zstd -19": lambda: len(zstandard.ZstdCompressor(level=19).compress(held_out)),
            "xz -9e": lambda: xz(held_out),
            "xz -9e primed": lambda: xz(train + held_out) - xz(train)}[what]()


def texts() -> None:
    """Write `codec.csv`: the held-out text under each compressor, model and archive."""
    train, held_out = (bytes(t) for t in corpora.load("prose"))
    runs = {name: run for run, name in KEPT.items()}

    def by_model(name: str, form: str, n_streams: int) -> dict:
        model, merges = load(*runs[name])
        model, size = packed(model, merges, form)
        tokens = bpe_encode(held_out, merges)
        _, bits = codec.encode_tokens(model, tokens, n_streams)
        bound, middle = bits.sum() / 8, time.perf_counter()
        blob = codec.compress(model, merges, held_out, n_streams)
        end = time.perf_counter()
        assert codec.decompress(model, merges, blob) == held_out
        assert bpe_decode(tokens, merges) == held_out
        return {"bytes": len(blob), "bound": round(bound, 1), "model_bytes": size,
                "bpb": 8 * len(blob) / len(held_out),
                "kB_per_s_in": round(len(held_out) / 1e3 / (end - middle), 1),
                "kB_per_s_out": round(len(held_out) / 1e3 / (time.perf_counter() - end), 1)}

    def by_archive(what: str) -> dict:
        begin, size = time.perf_counter(), archive(what, train, held_out)
        speed = round(len(held_out) / 1e3 / (time.perf_counter() - begin), 1)
        return {"bytes": size, "bound": 0.0, "model_bytes": 0, "bpb": 8 * size / len(held_out),
                "kB_per_s_in": speed, "kB_per_s_out": 0.0}

    for what in ("gzip -9", "bz2 -9", "zstd -19", "xz -9e", "xz -9e primed"):
        wanted = {"what": what, "format": "", "n_streams": 1, "text_bytes": len(held_out)}
        once("codec.csv", wanted, lambda what=what: by_archive(what))
    for (name, form), n_streams in [*((c, 64) for c in CODEC), (CODEC[0], 16), (CODEC[0], 256)]:
        wanted = {"what": name, "format": form, "n_streams": n_streams,
                  "text_bytes": len(held_out)}
        once("codec.csv", wanted, lambda a=(name, form, n_streams): by_model(*a))


def main(words: list[str]) -> int:
    """Make the parts named."""
    parser = argparse.ArgumentParser("make record", description=__doc__)
    parser.add_argument("parts", nargs="+", type=one_of("distil", "stack", "codec", "backwards"))
    chosen = parser.parse_args(words).parts
    order = -1 if "backwards" in chosen else 1
    parts = {"distil": lambda: distillation(order), "stack": stack, "codec": texts}
    if not (named := [name for name in parts if name in chosen]):
        parser.error("backwards stands beside distil")
    runtime.setup()
    for name in named:
        parts[name]()
    return 0
