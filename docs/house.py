"""Draw the house from the imports: rooms on their floors, an arrow to what a room stands on."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from html import escape
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "foresweep"
WIDTH, FLOOR, BOX, GAP, MARGIN = 860, 96, 54, 14, 16
FACE = {"__init__", "__main__"}


def rooms() -> dict[str, set[str]]:
    """Each room and the rooms it imports, function-level imports included."""
    asks: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if room in FACE:
            continue
        asked = asks.setdefault(room, set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                # `from foresweep import X` names a room or the version
                names = [f"{node.module}.{a.name}" for a in node.names]
                asked |= {n.split(".")[1] for n in names if n.startswith("foresweep.")}
    return {room: (asked & asks.keys()) - {room} for room, asked in asks.items()}


def floors(asks: dict[str, set[str]]) -> dict[str, int]:
    """Each room's floor, counted from the top: one below the lowest room that imports it."""
    stands: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in stands:
            stands[room] = 1 + max((floor(r) for r in asks if room in asks[r]), default=-1)
        return stands[room]

    for room in asks:
        floor(room)
    return stands


def reached(room: str, asks: dict[str, set[str]]) -> set[str]:
    """Every room below one, over whatever rooms between."""
    return asks[room].union(*(reached(r, asks) for r in asks[room]))


def nearest(room: str, asks: dict[str, set[str]]) -> Iterable[str]:
    """The rooms a room stands on directly: those it does not also reach by way of another."""
    return sorted(r for r in asks[room] if not any(r in reached(o, asks) for o in asks[room] - {r}))


def concepts(room: str) -> str:
    """The folders in a room, a folder with an `__init__.py` each."""
    inner = sorted(p.parent.name for p in (SOURCE / room).glob("*/__init__.py"))
    return " ".join(inner)


def draw() -> str:
    """The house as an SVG, without arrows that follow from others or lead to `errors`."""
    asks = rooms()
    stands = floors(asks)
    depth = max(stands.values())
    places: dict[str, tuple[float, float, float]] = {}

    def below_its_importers(room: str) -> tuple[float, str]:
        above = [places[r][0] + places[r][2] / 2 for r in places if room in nearest(r, asks)]
        return (sum(above) / len(above) if above else WIDTH / 2, room)

    for level in range(depth + 1):
        row = sorted((r for r, at in stands.items() if at == level), key=below_its_importers)
        wanted = [max(86, 30 + 8 * len(r), 20 + 5.4 * len(concepts(r))) for r in row]
        x = (WIDTH - sum(wanted) - GAP * (len(row) - 1)) / 2
        for room, width in zip(row, wanted, strict=True):
            places[room] = (x, MARGIN + level * FLOOR, width)
            x += width + GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} '
        f'{2 * MARGIN + depth * FLOOR + BOX}" font-family="sans-serif" role="img" '
        'aria-label="Rooms of the house on their floors; arrows go down to what a room imports">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#8a94a6"/></marker></defs>',
        f'<rect width="{WIDTH}" height="100%" fill="#fff"/>',
    ]
    for room, (x, y, width) in places.items():
        for below in nearest(room, asks):
            if below == "errors":  # nearly every room imports it
                continue
            bx, by, wide = places[below]
            lines.append(
                f'<path d="M{x + width / 2:.0f} {y + BOX}C{x + width / 2:.0f} {y + BOX + 26} '
                f'{bx + wide / 2:.0f} {by - 26} {bx + wide / 2:.0f} {by - 1}" fill="none" '
                'stroke="#8a94a6" stroke-width="1.3" marker-end="url(#tip)"/>'
            )
    for room, (x, y, width) in places.items():
        middle = x + width / 2
        inner = concepts(room)
        lines += [
            f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{BOX}" rx="7" '
            'fill="#eef3fb" stroke="#5b7db1"/>',
            f'<text x="{middle:.0f}" y="{y + (23 if inner else 32)}" text-anchor="middle" '
            f'font-size="15" font-weight="600" fill="#1d2a3f">{escape(room)}</text>',
        ]
        if inner:
            lines.append(
                f'<text x="{middle:.0f}" y="{y + 41}" text-anchor="middle" font-size="10.5" '
                f'fill="#4a5870">{escape(inner)}</text>'
            )
    return "\n".join([*lines, "</svg>", ""])
