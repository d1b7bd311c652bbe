"""The smallest whole plug-in keeps the contract, and stands on the page as it is."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from foresweep.evaluation.contract import Bench, ModelContract
from foresweep.models.registry import get_model
from planted_model import announced

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "examples" / "foresweep-line"
PAGE = (ROOT / "docs" / "adding-a-model.md").read_text("utf-8")
sys.path.insert(0, str(PACKAGE))

from foresweep_line import Line  # noqa: E402


class TestLine(ModelContract):
    random = False

    def make(self) -> Line:
        return Line()

    def config(self) -> Mapping[str, Any]:
        return {"context_length": 6}


def test_it_is_found_by_its_name(tmp_path: Path) -> None:
    with announced(tmp_path, "foresweep-line", "line = foresweep_line:Line\n"):
        assert isinstance(get_model("line"), Line)


def test_what_it_fits_is_what_numpy_solves(tmp_path: Path) -> None:
    trial = Bench(Line(), tmp_path).trial({"context_length": 6})
    assert trial.weights()["slopes"].shape == (5, 3)
    assert (np.diff(trial.weights()["spread"], axis=1) > 0).all()


def test_the_page_shows_it_whole() -> None:
    assert (PACKAGE / "foresweep_line.py").read_text("utf-8") in re.findall(
        r"```python\n(.*?)```", PAGE, re.DOTALL
    )


def test_it_has_forty_lines_beside_its_imports() -> None:
    tree = ast.parse((PACKAGE / "foresweep_line.py").read_text("utf-8"))
    code = [n for n in tree.body[1:] if not isinstance(n, ast.Import | ast.ImportFrom)]
    first = [min([n.lineno, *(d.lineno for d in n.decorator_list)]) for n in code]
    text = (PACKAGE / "foresweep_line.py").read_text("utf-8").splitlines()
    lines = [x for n, a in zip(code, first, strict=True) for x in text[a - 1 : n.end_lineno]]
    assert sum(bool(x.strip()) for x in lines) <= 40
