"""The helpers stay small, import one way, keep no state, and print nothing."""

import ast
import subprocess
import sys

import pytest

from tools import sync

HELPERS = sorted(f for f in (sync.ROOT / "helpers").rglob("*.py") if f.stem != "__init__")
MOST_MODULES, MOST_LINES = 26, 200
MAY_IMPORT = {  # module: the helpers it may import
    "runtime": set(),
    "models": set(),
    "flops": set(),
    "compress.course": {"checkpoints", "corpora", "models", "text"},
    "compress.prune": {"models", "training"},
    "compress.quantize": set(),
    "compress.packing": {"compress.quantize"},
    "compress.gptq": {"compress.quantize", "models"},
    "compress.cache": {"compress.packing", "compress.quantize", "models"},
    "compress.decode": {"compress.quantize", "models"},
    "compress.distil": {"data", "models", "steps", "training"},
    "compress.entropy": {"compress.quantize", "models"},
    "compress.codec": {"models", "text"},
    "solvers": set(),
    "approaches": {"solvers"},
    "fits": {"approaches", "plots", "solvers"},
    "plots": set(),
    "regression": set(),
    "classification": set(),
    "networks": {"classification"},
    "text": set(),
    "privacy": {"classification", "regression"},
    "data": {"runtime"},
    "corpora": {"data"},
    "exercises": {"runtime"},
    "claims": {"data", "runtime"},
    "widgets": {"plots", "fits"},
    "steps": set(),
    "training": {"runtime", "data", "models", "flops", "steps"},
    "checkpoints": {"models", "training"},
    "engines": set(),
    "ledger": set(),
    "sweeps": {"runtime", "data", "corpora", "models", "flops", "training", "checkpoints",
               "engines", "ledger"},
}
WITH_TORCH = {"runtime", "models", "steps", "training", "checkpoints", *(
    f"compress.{part}" for part in ("prune", "quantize", "packing", "gptq", "cache", "decode",
                                    "distil", "entropy", "codec"))}
MAY_PRINT = {"exercises"}


def name_of(module) -> str:
    """`fits`, or `compress.prune` in a package."""
    return ".".join(module.relative_to(sync.ROOT / "helpers").with_suffix("").parts)


every_module = pytest.mark.parametrize("module", HELPERS, ids=name_of)


def tree(module) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def test_ruff_finds_nothing_in_code_notebooks_and_tests():
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", str(sync.ROOT)]
    result = subprocess.run(command, cwd=sync.ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_the_readme_names_every_file_of_the_house():
    readme = (sync.ROOT / "README.md").read_text(encoding="utf-8")
    folders = ("helpers/*.*", "helpers/*/*.py", "tools/*.py", "tests/*.*", "tests/browser/*.py",
               "tests/benchmarks/*.py", "tests/offline/*.py", "data/*.*", "data/sweeps/*.csv",
               "data/models/*", "data/published/*.csv", "notebooks/*.png", "*.*")
    files = [f for pattern in folders for f in sync.ROOT.glob(pattern)
             if f.is_file() and not f.name.startswith((".", "__"))]
    assert [f.name for f in files if f.name not in readme] == []


def test_the_package_is_small():
    assert len({name_of(m).split(".")[0] for m in HELPERS}) <= MOST_MODULES


@every_module
def test_a_module_is_short_and_says_what_it_is(module):
    text = module.read_text(encoding="utf-8")
    assert sum(1 for line in text.splitlines() if line.strip()) <= MOST_LINES
    assert ast.get_docstring(tree(module))


@every_module
def test_imports_point_one_way(module):
    text = module.read_text(encoding="utf-8")
    assert sync.imported_helpers(text) <= MAY_IMPORT[name_of(module)]
    roots = {a.name.split(".")[0] for n in ast.walk(tree(module)) if isinstance(n, ast.Import)
             for a in n.names}
    roots |= {n.module.split(".")[0] for n in ast.walk(tree(module))
              if isinstance(n, ast.ImportFrom)}
    assert not {"notebooks", "tests", "tools"} & roots
    assert name_of(module) in WITH_TORCH or "torch" not in roots


@every_module
def test_a_module_prints_nothing_and_binds_only_constants(module):
    calls = {n.func.id for n in ast.walk(tree(module))
             if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert module.stem in MAY_PRINT or "print" not in calls
    for node in tree(module).body:
        if isinstance(node, ast.Assign):
            names = [n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            assert all(name.isupper() for name in names), names


@every_module
def test_public_functions_and_classes_have_docstrings(module):
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
