"""The plan of the house: floors, homes of heavy libraries, no circles, comfortable rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "foresweep"
FLOORS = [
    {"errors"},
    {"settings"},
    {"data", "space", "metrics", "web"},
    {"models", "stats", "records"},
    {"evaluation", "tracker"},
    {"search", "integrations"},
    {"selection"},
    {"lifecycle"},
    {"reporting", "serving"},
    {"cli", "compat"},
    {"face"},
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
FACE = {"__init__", "__main__"}
HOMES = {
    "torch": {"models"},
    "transformers": {"models"},
    "peft": {"models"},
    "safetensors": {"models"},
    "toto": {"models"},
    "chronos": {"models"},
    "kronos_finance": {"models"},
    "huggingface_hub": {"models"},
    "sqlalchemy": {"tracker"},
    "alembic": {"tracker"},
    "optuna": {"search", "reporting"},
    "ray": {"search"},
    "fsspec": {"search"},
    "polars": {"data"},
    "charset_normalizer": {"data"},
    "fastexcel": {"data"},
    "bokeh": {"data"},
    "bokeh_sampledata": {"data"},
    "exchange_calendars": {"data"},
    "arch": {"stats", "data"},
    "mlflow": {"integrations"},
    "wandb": {"integrations"},
    "typer": {"cli"},
    "rich": {"cli"},
    "fastapi": {"reporting", "serving", "web"},
    "starlette": {"reporting", "web"},
    "prometheus_client": {"serving"},
    "uvicorn": {"web"},
    "jinja2": {"reporting"},
    "plotly": {"reporting"},
}
LONGEST_FILE = 700
MOST_FILES = 15
TOO_FULL_YET: dict[str, int] = {}
DEEPEST = 3  # folders below the package: tracker/migrations/versions


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every module imported anywhere in a file, functions included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative imports hide the floor"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted(p for p in ROOT.rglob("*.py") if room(p) not in FACE)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_import_is_at_home(path: Path) -> None:
    here = room(path)
    assert here in FLOOR, f"{here} stands on no floor: draw it in FLOORS first"
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "foresweep":
            there = rest.split(".")[0]
            if there not in FLOOR:  # the face: only __version__ may be asked of it
                assert rest == "__version__", f"{here} must not import {name}"
                continue
            assert there == here or FLOOR[there] < FLOOR[here], f"{here} must not know {there}"
        elif top in HOMES:
            assert here in HOMES[top], f"{top} lives in {HOMES[top]}, not in {here}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_is_too_long_for_comfort(path: Path) -> None:
    assert path.read_text().count("\n") <= LONGEST_FILE


def test_no_folder_holds_more_files_than_one_can_overlook() -> None:
    folders = Counter(str(p.parent.relative_to(ROOT)) for p in FILES if p.stem != "__init__")
    for folder, num_files in folders.items():
        assert num_files <= TOO_FULL_YET.get(folder, MOST_FILES), folder
        assert len(Path(folder).parts) <= DEEPEST, folder


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    doc = ast.get_docstring(ast.parse(path.read_text()))
    assert doc, f"{path} has no docstring"
    assert doc.splitlines()[0].endswith((".", ":")), f"{path}: one sentence first"


def test_no_two_modules_import_each_other_functions_included() -> None:
    edges = {module(p): own_imports(p) for p in FILES}
    for start in edges:
        seen, stack = set(), list(edges[start])
        while stack:
            name = stack.pop()
            assert name != start, f"{start} is part of an import circle"
            if name not in seen:
                seen.add(name)
                stack += edges.get(name, ())


def module(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(p for p in parts if p != "__init__")


def own_imports(path: Path) -> set[str]:
    """foresweep modules that this one loads, now or later, as names of files; what it names for
    type checkers alone is never loaded."""
    known = {module(p) for p in FILES}
    found: set[str] = set()
    stack: list[ast.AST] = [ast.parse(path.read_text())]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            stack += node.orelse
            continue
        stack += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("foresweep"):
            names = {f"{node.module}.{a.name}" for a in node.names}
            found |= {n if n in known else node.module for n in names}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
    return (found & known) - {module(path)}


def loaded_after(code: str) -> set[str]:
    program = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


def test_the_face_is_light() -> None:
    heavy = {"torch", "optuna", "ray", "sqlalchemy", "pandas", "numpy", "pydantic", "polars"}
    assert not heavy & loaded_after("import foresweep")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import io, contextlib\n"
        "from foresweep.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main(['--help'])"
    )
    heavy = {"torch", "optuna", "ray", "sqlalchemy", "pandas", "numpy", "polars", "transformers"}
    assert not heavy & loaded_after(code)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("foresweep.selection.verdict.gates", {"sqlalchemy", "polars", "torch"}),
        ("foresweep.cli.tables", {"polars", "optuna", "torch"}),
        # a family's hyperparameters are asked for by pages and heads, which train nothing
        ("foresweep.models.toto.model", {"torch", "toto"}),
        ("foresweep.models.kronos.model", {"torch", "kronos_finance"}),
        ("foresweep.models.chronos2.model", {"torch", "chronos", "peft"}),
    ],
)
def test_what_needs_no_database_prices_or_network_loads_none(module: str, heavy: set[str]) -> None:
    assert not heavy & loaded_after(f"import {module}")
