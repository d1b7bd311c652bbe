"""What a sweep says of its data before it trains: how much they can prove."""

from __future__ import annotations

from dataclasses import replace

from foresweep.cli.live import evidence_lines, origins_line, survivorship_lines
from foresweep.data.gate.report import QualityReport, found
from foresweep.data.splits import WANTED_ORIGINS, Cut, make_split
from foresweep.evaluation.yardstick import ENOUGH_ORIGINS
from panels import make_panel

PANEL = make_panel(1, 2000)


def test_parts_have_about_forty_origins_by_default_and_each_says_how_many() -> None:
    split = make_split(PANEL, Cut(5))
    for part in split.parts[1:]:
        assert WANTED_ORIGINS <= len(part.origins) < 1.5 * WANTED_ORIGINS
        counted = f"{part.name} {len(part.origins)} origins"
        assert counted in origins_line(split)
    assert origins_line(split).endswith("test is sealed")
    assert evidence_lines(split) == []


def test_too_few_effective_origins_are_said_with_their_number() -> None:
    """Labels of neighbouring origins overlap, so that many origins may be few effective ones."""
    split = make_split(PANEL, Cut(20))
    assert len(split.part("val").origins) > ENOUGH_ORIGINS
    (line,) = evidence_lines(split)
    for name in ("val", "test"):
        assert f"{name} {split.part(name).effective_origins(20):.1f}" in line
    assert "at most `hold`" in line


def test_only_the_part_that_is_short_is_named() -> None:
    split = make_split(PANEL, Cut(5))
    val = split.part("val")
    parts = tuple(replace(p, origins=p.origins[: ENOUGH_ORIGINS - (p is val)]) for p in split.parts)
    (line,) = evidence_lines(replace(split, parts=parts))
    assert "val 19.0 effective origins" in line
    assert "test" not in line


def test_survivors_are_said_and_nothing_is_said_of_others() -> None:
    told = found("survivorship", "all 31 items live to the end", file="x", item=None)
    report = QualityReport("x", (told,), ("a",), (), 1, 0)
    assert survivorship_lines(report) == [
        "Survivorship: all 31 items live to the end, so results are too good."
    ]
    assert survivorship_lines(replace(report, findings=())) == []
