"""The page on adding a model shows the examples' code or a family's, not something like it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2]
ROOT = EXAMPLES.parent
PAGE = ROOT / "docs" / "adding-a-model.md"
BLOCKS = re.findall(r"```(python|toml)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize(("kind", "block"), BLOCKS, ids=lambda x: x.strip().splitlines()[0])
def test_every_block_of_code_stands_in_an_example_or_a_family(kind: str, block: str) -> None:
    files = [
        *EXAMPLES.rglob("*.py"),
        *EXAMPLES.rglob("*.toml"),
        *ROOT.glob("tests/models/*line.py"),
        *ROOT.glob("src/foresweep/models/*/model.py"),
    ]
    assert any(block in file.read_text("utf-8") for file in files)


def test_the_page_has_code() -> None:
    assert {kind for kind, _ in BLOCKS} == {"python", "toml"}
    assert len(BLOCKS) >= 8
