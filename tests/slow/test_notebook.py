"""The notebook of `examples/` runs from its first cell to its last, in a kernel of its own."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook" / "first_sweep.ipynb"


def shown(cell: nbformat.NotebookNode) -> str:
    """What a cell ends with, as text."""
    return "".join(
        o.data["text/plain"] for o in cell.outputs if "data" in o and "text/plain" in o.data
    )


def test_the_notebook_runs_and_says_what_its_text_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    book = nbformat.read(NOTEBOOK, as_version=4)
    place = tmp_path / "where it runs"
    place.mkdir()
    client = NotebookClient(book, timeout=300, resources={"metadata": {"path": str(place)}})
    client.execute()
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    prices, _, board, verdict, _, forecast, _ = (shown(cell) for cell in code)
    assert "item_id" in prices
    assert "chronos2" in board
    assert "last-value" in board
    assert verdict.strip("'") in ("promote", "hold", "naive wins")
    assert "predictions" in forecast
    assert "<html" in (place / "report.html").read_text("utf-8")[:300]


def test_the_notebook_is_kept_without_what_it_printed() -> None:
    book = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert not [cell.id for cell in code if cell.outputs or cell.execution_count]
