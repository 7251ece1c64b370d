"""The helpers stay small, import one way, keep no state, and say what they accept."""

import ast
import subprocess
import sys

import pytest

from tools import sync

HOUSE = sync.ROOT / "helpers"
HELPERS = sorted(f for f in HOUSE.rglob("*.py") if f.stem != "__init__")
MOST_LINES, MOST_IN_A_WING, MOST_AT_THE_TOP = 200, 9, 8
FLOORS = (  # wings and modules at the top; each imports its own wing and the floors before it
    ("foundations",),
    ("runtime", "plots"),
    ("data", "exercises"),
    ("corpora", "claims", "widgets"),
    ("transformer",),
    ("scaling",),
    ("fits",),  # the public name of scaling's fits
    ("compress", "serving"),
)
WITHOUT_TORCH = {"plots", "fits", "scaling.fits", "scaling.solvers", "scaling.approaches",
                 "scaling.report", "scaling.ledger"}  # wherever their imports lead
MAY_PRINT = {"exercises"}


def name_of(module) -> str:
    """`data`, or `compress.prune` in a wing."""
    return ".".join(module.relative_to(HOUSE).with_suffix("").parts)


every_module = pytest.mark.parametrize("module", HELPERS, ids=name_of)


def tree(module) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def floor_of(name: str) -> int:
    return next(i for i, floor in enumerate(FLOORS) if name.split(".")[0] in floor)


def imported_roots(module) -> set[str]:
    """The first names of all modules that this one imports, wherever it does."""
    nodes = list(ast.walk(tree(module)))
    return {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names} | {
        (n.module or "").split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom)}


def test_ruff_finds_nothing_in_code_notebooks_and_tests():
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", str(sync.ROOT)]
    result = subprocess.run(command, cwd=sync.ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_the_readme_names_every_folder_of_the_house():
    readme = (sync.ROOT / "README.md").read_text(encoding="utf-8")
    tracked = subprocess.run(["git", "ls-files"], cwd=sync.ROOT, capture_output=True, text=True,
                             check=False).stdout.split()
    folders = {part for name in tracked for part in name.split("/")[:-1] if name[0] != "."}
    modules = {name_of(m) for m in HELPERS if "." not in name_of(m)}
    assert [name for name in sorted(folders | modules) if name not in readme] == []


def test_the_package_is_small():
    names = [name_of(m).split(".") for m in HELPERS]
    assert sum(len(name) == 1 for name in names) <= MOST_AT_THE_TOP
    for wing in {name[0] for name in names if len(name) > 1}:
        assert sum(name[0] == wing for name in names) <= MOST_IN_A_WING, wing


@every_module
def test_a_module_is_short_and_says_what_it_is(module):
    text = module.read_text(encoding="utf-8")
    assert sum(1 for line in text.splitlines() if line.strip()) <= MOST_LINES
    assert ast.get_docstring(tree(module))


@every_module
def test_imports_point_one_way(module):
    name, wing = name_of(module), name_of(module).split(".")[0]
    for other in sync.imported_helpers(module.read_text(encoding="utf-8")):
        own = other.split(".")[0] == wing and "." in name
        assert own or floor_of(other) < floor_of(name), f"{name} imports {other}"
    assert not {"notebooks", "tests", "tools", "recordings"} & imported_roots(module)


@every_module
def test_what_must_do_without_torch_does(module):
    if name_of(module) in WITHOUT_TORCH:
        reached, new = set(), {name_of(module)}
        while new:
            reached |= new
            new = {other for one in new for other in sync.imported_helpers(
                (HOUSE / f"{one.replace('.', '/')}.py").read_text(encoding="utf-8"))} - reached
        for one in reached:
            assert "torch" not in imported_roots(HOUSE / f"{one.replace('.', '/')}.py"), one


@every_module
def test_a_module_prints_nothing_and_binds_only_constants(module):
    calls = {n.func.id for n in ast.walk(tree(module))
             if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert name_of(module) in MAY_PRINT or "print" not in calls
    for node in tree(module).body:
        if isinstance(node, ast.Assign):
            names = [n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            assert all(name.isupper() for name in names), names


@every_module
def test_public_functions_and_classes_have_docstrings(module):
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


@every_module
def test_public_functions_say_what_they_accept(module):
    if name_of(module) in {"foundations.accepts", "foundations.rules"} | MAY_PRINT:
        return  # the rules themselves; and what never raises
    for node in tree(module).body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node).startswith("Rule: "):
            continue  # a rule refuses by itself
        spec = node.args
        wanted = {a.arg for a in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)}
        said = {k.arg for d in node.decorator_list if isinstance(d, ast.Call)
                and getattr(d.func, "id", "") == "accepts" for k in d.keywords}
        assert wanted <= said, f"{node.name}: no rule for {', '.join(sorted(wanted - said))}"
