"""Draw what the verdict promotes, from its stored campaign: `python docs/verdict_picture.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

DOCS = Path(__file__).parent
STORED, PICTURE = DOCS / "verdict-power.json", DOCS / "verdict-power.svg"
COLOURS = ("#1b6ca8", "#b5541c")


def draw(stored: Path, picture: Path) -> None:
    """Write the power curves of a campaign as an SVG; the same JSON gives the same file."""
    found = json.loads(stored.read_text(encoding="utf-8"))
    style = {"svg.hashsalt": "foresweep", "svg.fonttype": "none", "font.family": "sans-serif"}
    with mpl.rc_context(style):
        figure = Figure(figsize=(7.2, 3.8))
        axes = figure.subplots()
        for curve, colour in zip(found["curves"], COLOURS, strict=True):
            _curve(axes, curve, colour)
        axes.axhline(0.8, color="#999999", linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        skills = found["curves"][0]["skill"]
        axes.set_xticks([100 * s for s in skills], [f"{100 * s:g} %" for s in skills])
        axes.set_xticks([], minor=True)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("skill of the one skilful trial among 60")
        axes.set_ylabel("share of sweeps that promote it")
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(0.0, 0.42))
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        figure.tight_layout()
        figure.savefig(picture, format="svg", metadata={"Date": None, "Creator": None})


def _curve(axes: Any, curve: dict[str, Any], colour: str) -> None:
    x = [100 * s for s in curve["skill"]]
    name = f"{curve['items']} items, {curve['origins']} origins"
    axes.plot(x, curve["promoted"], "o-", color=colour, label=f"{name}: whole procedure")
    axes.plot(x, curve["reckoned"], "--", color=colour, label="as `foresweep power` reckons")
    axes.plot(x, curve["reckoned_shared"], ":", color=colour, label="errors shared by all items")


if __name__ == "__main__":
    draw(STORED, PICTURE)
