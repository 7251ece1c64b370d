"""Execute the notebooks whose `.py` (or whose helpers) changed, and write their `.ipynb`.

`python tools/sync.py` takes the stale ones, `python tools/sync.py 02 06` takes these chapters.
The `.py` is what people edit; the `.ipynb` is made here. What somebody wrote into an `.ipynb` alone
is copied to `NN_slug.kept-1.ipynb` before it would be replaced; `--keep` does nothing else, and
`make lab` calls it, because JupyterLab shows the cells of the `.py` and saves over the others.
"""

import argparse
import ast
import base64
import hashlib
import itertools
import json
import math
import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

# jupytext and all that takes seconds to import is imported where it is used: `--keep` is quick.

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
README_FIGURE = NOTEBOOKS / "sealed_prediction.png"
TIME_LIMIT = 1800  # seconds one cell may take
DRAW = {"panels", "subplots", "figure", "plot", "scatter", "hist", "bar", "imshow", "explore"}
LEFT_OUT = (  # variables that change what a kernel prints or draws: first letters of their names
    "PYTHONWARNINGS", "PYTHONOPTIMIZE", "PYTHONHASHSEED", "PYTHONDEVMODE", "PYTHONIOENCODING",
    "MPLBACKEND", "MATPLOTLIBRC", "IPYTHONDIR", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "COLUMNS",
    "LINES", "LANG", "LC_")
THREADS = ("OMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "VECLIB_")  # as many as a notebook says itself


def sources() -> list[Path]:
    """The edited halves of all pairs, in chapter order."""
    return sorted(f for f in NOTEBOOKS.glob("[0-9][0-9]_*.py") if ".kept-" not in f.name)


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


def stored(source: Path):
    """The `.ipynb` of a `.py`; None if it is missing, or no notebook (a merge's marks in it)."""
    import nbformat

    try:
        return nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    except (FileNotFoundError, ValueError, AttributeError, KeyError, TypeError):
        return None


def cells(notebook) -> list[tuple]:
    """What the two halves of a pair have in common: type, source and tags of each cell."""
    return [(c.cell_type, c.source, sorted(c.metadata.get("tags", []))) for c in notebook.cells]


def is_stale(source: Path) -> bool:
    """Whether the stored notebook is missing, altered, or made from other files than today's."""
    import jupytext

    notebook = stored(source)
    return (notebook is None or notebook.metadata.get("workbook") != provenance(source)
            or cells(notebook) != cells(jupytext.read(source)))


def _id(cell_source: str) -> str:
    return hashlib.sha256(cell_source.encode()).hexdigest()[:10]


def written(notebook: Path) -> set[str] | None:
    """What stands in the cells of an `.ipynb` that are not as sync stored them: their ids say so.

    None if the file is no notebook.
    """
    try:
        found = [("".join(c["source"]), c.get("id", ""))
                 for c in json.loads(notebook.read_text(encoding="utf-8"))["cells"]]
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return {text for text, name in found if text.strip() and name.split("-")[0] != _id(text)}


def keep(source: Path) -> Path | None:
    """Copy an `.ipynb` aside if somebody wrote what its `.py` does not have; return the copy.

    Returns None if there is nothing to keep, or a copy of these very bytes is there.
    """
    file = source.with_suffix(".ipynb")
    if not file.exists() or (text := written(file)) == set():
        return None
    if text is not None:
        import jupytext

        if text <= {cell.source for cell in jupytext.read(source).cells}:
            return None
    content = file.read_bytes()
    for number in itertools.count(1):
        copy = source.with_suffix(f".kept-{number}.ipynb")
        if not copy.exists():
            write_whole(copy, content)
            return copy
        if copy.read_bytes() == content:
            return None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there as a whole, or as it was, whatever happens meanwhile."""
    part = path.with_name(f"{path.name}.part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def environment(folder: str) -> dict[str, str]:
    """The variables of a kernel whose outputs are stored: what the tests compare with.

    Neither the caller's variables nor the settings in a home directory reach it.
    """
    import matplotlib

    inherited = {name: value for name, value in os.environ.items()
                 if not name.startswith(LEFT_OUT + THREADS)}
    return inherited | {
        "PROFILE": "quick", "DEVICE": "cpu", "COURSE_PROGRESS": f"{folder}/progress.json",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline", "PYTHONUTF8": "1",
        "MATPLOTLIBRC": f"{matplotlib.get_data_path()}/matplotlibrc", "IPYTHONDIR": folder}


def execute(source: Path):
    """The notebook of a `.py`, executed top to bottom in its folder, ready to be stored.

    Raises nbclient's CellExecutionError, CellTimeoutError or DeadKernelError if a cell fails,
    ValueError if one draws and stores no image.
    """
    import jupytext
    import nbformat
    from nbclient import NotebookClient

    notebook, made_from = jupytext.read(source), provenance(source)
    seen = {}
    for cell in notebook.cells:
        key = _id(cell.source)
        seen[key] = seen.get(key, 0) + 1
        cell.id = key if seen[key] == 1 else f"{key}-{seen[key]}"
    client = NotebookClient(notebook, timeout=TIME_LIMIT, record_timing=False,
                            coalesce_streams=True,
                            resources={"metadata": {"path": str(NOTEBOOKS)}})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        client.execute(env=environment(folder))
    if unseen := without_image(notebook):
        raise ValueError("a cell draws a figure and stores no image:\n" + "\n\n".join(unseen))
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


def without_image(notebook) -> list[str]:
    """Source of the executed cells that draw, outside of any function, and hold no image."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"
            and DRAW & _called(ast.parse(cell.source))
            and not any("image/png" in o.get("data", {}) for o in cell.outputs)]


def _called(node: ast.AST) -> set[str]:
    """Names of what is called here, and not in a function that is only defined here."""
    if isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
        return set()
    function = node.func if isinstance(node, ast.Call) else None
    name = getattr(function, "attr", getattr(function, "id", ""))
    return {name}.union(*map(_called, ast.iter_child_nodes(node)))


def save_readme_figure(notebook) -> None:
    """Write the figure of the cell tagged `readme`, if this notebook has it, for the README."""
    for cell in notebook.cells:
        if "readme" in cell.metadata.get("tags", []):
            images = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
            write_whole(README_FIGURE, base64.b64decode(images[0]))


def keep_older_halves(chosen: list[Path]) -> None:
    """Keep what somebody wrote into these notebooks alone, and say where."""
    for source in chosen:
        if copy := keep(source):
            print(f"{source.stem}.ipynb holds cells that {source.name} does not have: "
                  f"they are kept in {copy.name}", file=sys.stderr)


def config_of(notebook) -> list[str]:
    """The cell that holds every number of a chapter, and so says how much work it is."""
    return [c.source for c in notebook.cells if "config" in c.metadata.get("tags", [])]


def keep_best_time(notebook, stored) -> None:
    """Of two runs of the same work the shorter tells what it takes: others disturb, none helps.

    `seconds` and the `gflops` of its machine are those of the stored run if that was shorter.
    """
    if config_of(notebook) == config_of(stored) and (
            stored.metadata.get("seconds", math.inf) < notebook.metadata["seconds"]):
        notebook.metadata |= {name: stored.metadata[name] for name in ("seconds", "gflops")}


def sync(source: Path, peak: float) -> None:
    """Execute one chapter and store it, after a copy of what somebody wrote into the old one."""
    import nbformat

    start = time.perf_counter()
    notebook = execute(source)
    notebook.metadata["seconds"] = round(time.perf_counter() - start)
    notebook.metadata["gflops"] = round(peak / 1e9)  # chapter 00 scales the seconds by it
    with suppress(OSError, ValueError, AttributeError, KeyError):  # no notebook, or a damaged one
        keep_best_time(notebook, nbformat.read(source.with_suffix(".ipynb"), as_version=4))
    save_readme_figure(notebook)
    keep_older_halves([source])
    write_whole(source.with_suffix(".ipynb"), (nbformat.writes(notebook) + "\n").encode())
    print(f"{source.stem}: {notebook.metadata['seconds']} s", flush=True)


def main(words: list[str]) -> int:
    """Sync the given chapters, or the stale ones; return the exit status."""
    chapters = {source.stem[:2]: source for source in sources()}
    parser = argparse.ArgumentParser("make sync", description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", metavar="NN", help="chapters; all by default")
    parser.add_argument("--keep", action="store_true",
                        help="execute nothing: keep copies of what stands in an .ipynb alone")
    chosen = parser.parse_args(words)
    if unknown := [name for name in chosen.chapters if name not in chapters]:
        parser.error(f"there is no chapter {', '.join(unknown)}: expected {', '.join(chapters)}")
    named = [chapters[name] for name in sorted({*chosen.chapters})]
    if chosen.keep:
        keep_older_halves(named or sources())
        return 0
    import torch
    from nbclient.exceptions import CellControlSignal, DeadKernelError

    from helpers import runtime

    try:
        stale = []
        for source in sources():
            if source in named or (not named and is_stale(source)):
                stale.append(source)
        print(f"{len(stale)} of {len(chapters)} notebooks to execute", flush=True)
        runtime.setup()
        peak = runtime.peak_flops(torch.device("cpu"))
        for source in stale:
            sync(source, peak)
    except (CellControlSignal, DeadKernelError, OSError, SyntaxError, ValueError) as error:
        print(f"{source.name}: the stored notebook is left as it was.\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{source.name}: stopped; the stored notebook is left as it was", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
