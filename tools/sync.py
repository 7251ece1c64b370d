"""Execute the notebooks whose `.py` (or whose helpers) changed, and write their `.ipynb`.

`python tools/sync.py` takes the stale ones, `python tools/sync.py 02 06` takes these chapters.
The `.py` is what people edit; the `.ipynb` is always made here, never edited.
"""

import ast
import base64
import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from helpers import runtime

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
README_FIGURE = NOTEBOOKS / "sealed_prediction.png"
TIME_LIMIT = 600  # seconds one cell may take


def sources() -> list[Path]:
    """The edited halves of all pairs, in chapter order."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.py"))


def imported_helpers(source: str) -> set[str]:
    """Helper modules that a piece of Python imports directly: "data", or "compress.prune"."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "helpers":
            inside = node.module.removeprefix("helpers").lstrip(".")
            for alias in node.names:
                name = f"{inside}.{alias.name}".lstrip(".")
                names.add(name if _module(name).is_file() else inside)
    return names


def provenance(source: Path) -> dict[str, str]:
    """What a stored notebook depends on: sha256 of its `.py`, and of each file behind it, joined.

    Behind it stand the helper modules it imports, those they import, and its solutions.
    """
    behind, new = set(), imported_helpers(source.read_text(encoding="utf-8"))
    while new:
        behind |= new
        new = set().union(*(imported_helpers(_module(n).read_text(encoding="utf-8"))
                            for n in new)) - behind
    files = [_module(name) for name in sorted(behind)]
    files += [f for f in [NOTEBOOKS / "solutions" / source.name] if f.exists()]
    return {"source": _sha256([source]), "helpers": _sha256(files)}


def _module(name: str) -> Path:
    return ROOT / "helpers" / f"{name.replace('.', '/')}.py"


def _sha256(files: list[Path]) -> str:
    text = "\0".join(f.read_text(encoding="utf-8") for f in files)  # newlines read as \n
    return hashlib.sha256(text.encode()).hexdigest()


def is_stale(source: Path) -> bool:
    """Whether the stored notebook is missing or was made from other files than the present."""
    stored = source.with_suffix(".ipynb")
    if not stored.exists():
        return True
    return nbformat.read(stored, as_version=4).metadata.get("workbook") != provenance(source)


def execute(source: Path) -> nbformat.NotebookNode:
    """The notebook of a `.py`, executed top to bottom in its folder, ready to be stored.

    Raises CellExecutionError if a cell fails.
    """
    notebook, made_from = jupytext.read(source), provenance(source)
    seen = {}
    for cell in notebook.cells:
        key = hashlib.sha256(cell.source.encode()).hexdigest()[:10]
        seen[key] = seen.get(key, 0) + 1
        cell.id = key if seen[key] == 1 else f"{key}-{seen[key]}"
    NotebookClient(notebook, timeout=TIME_LIMIT, record_timing=False, coalesce_streams=True,
                   resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)  # its model dies with the kernel
    notebook.metadata = nbformat.from_dict({
        "kernelspec": notebook.metadata.kernelspec,
        "language_info": {"name": "python"},
        "jupytext": {name: value for name, value in notebook.metadata.jupytext.items()
                     if name != "text_representation"},
        "workbook": made_from,
    })
    return notebook


def save_readme_figure(notebook: nbformat.NotebookNode) -> None:
    """Write the figure of the cell tagged `readme`, if this notebook has it, for the README."""
    for cell in notebook.cells:
        if "readme" in cell.metadata.get("tags", []):
            images = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
            README_FIGURE.write_bytes(base64.b64decode(images[0]))


def main(chapters: list[str]) -> int:
    """Sync the given chapters, or the stale ones; return the exit status."""
    chosen = [s for s in sources() if (s.stem[:2] in chapters if chapters else is_stale(s))]
    print(f"{len(chosen)} of {len(sources())} notebooks to execute")
    runtime.setup()
    peak = runtime.peak_flops(torch.device("cpu"))
    os.environ |= {"PROFILE": "quick", "DEVICE": "cpu"}  # what the tests compare with
    with tempfile.TemporaryDirectory() as folder:
        for source in chosen:
            os.environ["COURSE_PROGRESS"] = f"{folder}/{source.stem}.json"
            start = time.perf_counter()
            try:
                notebook = execute(source)
            except CellExecutionError as error:
                print(f"{source.name}: a cell failed; the stored notebook is left as it was.\n"
                      f"{error}", file=sys.stderr)
                return 1
            notebook.metadata["seconds"] = round(time.perf_counter() - start)
            notebook.metadata["gflops"] = round(peak / 1e9)  # chapter 00 scales the seconds by it
            save_readme_figure(notebook)
            text = nbformat.writes(notebook) + "\n"
            source.with_suffix(".ipynb").write_text(text, encoding="utf-8", newline="\n")
            print(f"{source.stem}: {notebook.metadata['seconds']} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
