"""What disks, hasty hands and hostile ones do to files: each damage by name, seeded."""

from __future__ import annotations

import os
import random
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from foresweep.errors import ForesweepError

Damage = Callable[[bytes, random.Random], bytes]


def _somewhere(content: bytes, chance: random.Random) -> tuple[int, int]:
    """A short stretch of it."""
    at = chance.randrange(max(len(content), 1))
    return at, min(at + chance.choice([1, 2, 8, 64, 512]), len(content))


def _bit(content: bytes, chance: random.Random) -> bytes:
    at, _ = _somewhere(content, chance)
    return content[:at] + bytes([content[at] ^ (1 << chance.randrange(8))]) + content[at + 1 :]


def _byte(content: bytes, chance: random.Random) -> bytes:
    at, _ = _somewhere(content, chance)
    return content[:at] + bytes([chance.choice(b'\x00\xff",;{}[]\n\r\t -e9"')]) + content[at + 1 :]


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def _hole(content: bytes, chance: random.Random) -> bytes:
    at, end = _somewhere(content, chance)
    return content[:at] + bytes(end - at) + content[end:]


def _lost(content: bytes, chance: random.Random) -> bytes:
    at, end = _somewhere(content, chance)
    return content[:at] + content[end:]


def _twice(content: bytes, chance: random.Random) -> bytes:
    at, end = _somewhere(content, chance)
    return content[:end] + content[at:]


def _noise(content: bytes, chance: random.Random) -> bytes:
    at, end = _somewhere(content, chance)
    return content[:at] + chance.randbytes(end - at) + content[end:]


def _tail(content: bytes, chance: random.Random) -> bytes:
    return content + chance.randbytes(chance.choice([1, 30, 3000]))


def _front(content: bytes, chance: random.Random) -> bytes:
    return chance.choice([b"\x00", b"\xff\xfe", b"<html>\n", b"\xef\xbb\xbf\xef\xbb\xbf"]) + content


def _empty(content: bytes, chance: random.Random) -> bytes:
    return chance.choice([b"", b"\n", b"\x00" * 512, b" \t\r\n"])


BYTES: dict[str, Damage] = {
    "a bit flipped": _bit,
    "a byte changed": _byte,
    "cut off": _cut,
    "a hole of zeros": _hole,
    "a stretch lost": _lost,
    "a stretch twice": _twice,
    "noise over a stretch": _noise,
    "noise behind it": _tail,
    "something before it": _front,
    "nothing in it": _empty,
}


def damaged(content: bytes, chance: random.Random) -> tuple[str, bytes]:
    """(what was done, the content after it); never the same as before."""
    while True:
        name = chance.choice(list(BYTES))
        done = BYTES[name](content, chance)
        if done != content:
            return name, done


NONSENSE = (
    *("", "nan", "-1", "0", "1e400", "-0", "inf", "true", "null", "[]", "{}", '"', "'", "#", "="),
    *("\x00", "\x1b[2J", "\ud7ff", "é", "名", "9" * 400, "1" * 30, "..", "../x", "[[", "]]", "a.b"),
    *("[red]", "<script>alert(1)</script>", "'; DROP TABLE runs; --", "%s%n", "{0}", "$(id)"),
)
"""What stands where something else should."""
TOKEN = re.compile(r"[\w.+-]+|\"[^\"\n]*\"|[^\w\s]")


def retyped(text: str, chance: random.Random) -> tuple[str, str]:
    """(what was done, the text after it): a word or a line changed, moved, lost or said twice."""
    words = list(TOKEN.finditer(text))
    match chance.choice(["word", "word", "word", "quoted", "deep", "line", "line", "swap"]):
        case "word":
            one, put = chance.choice(words), chance.choice(NONSENSE)
            return f"{put!r:.20} for {one[0]!r:.20}", text[: one.start()] + put + text[one.end() :]
        case "quoted":
            one, put = chance.choice(words), f'"{chance.choice(NONSENSE)}"'
            return f"{put!r:.20} for {one[0]!r:.20}", text[: one.start()] + put + text[one.end() :]
        case "deep":
            one, num = chance.choice(words), chance.choice([100, 3000, 100_000])
            deep = "[" * num + "]" * num
            return f"{num} brackets", text[: one.start()] + deep + text[one.end() :]
        case "swap":
            one, other = sorted(chance.sample(words, 2), key=lambda m: m.start())
            between = text[one.end() : other.start()]
            return (
                f"{one[0]!r:.20} and {other[0]!r:.20} swapped",
                text[: one.start()] + other[0] + between + one[0] + text[other.end() :],
            )
    lines = text.split("\n")
    at = chance.randrange(len(lines))
    match chance.choice(["lost", "twice", "moved"]):
        case "lost":
            return f"line {at + 1} lost", "\n".join(lines[:at] + lines[at + 1 :])
        case "twice":
            return f"line {at + 1} twice", "\n".join(lines[: at + 1] + lines[at:])
    line = lines.pop(at)
    lines.insert(chance.randrange(len(lines) + 1), line)
    return f"line {at + 1} moved", "\n".join(lines)


@dataclass
class Seen:
    """What became of the cases of a campaign."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def add(self, outcome: str, what: str) -> None:
        """`wrong: ...` is a finding; else the word before the colon is counted."""
        self.outcomes[outcome.partition(":")[0]] += 1
        if outcome.startswith("wrong"):
            self.findings.append(f"{outcome} <- {what}")

    def require_none_wrong(self) -> None:
        print(dict(self.outcomes))
        assert not self.findings, "\n".join([str(len(self.findings)), *self.findings[:40]])


def refusal(error: BaseException) -> str:
    """`refused: ...` where an error is one of ours and tells itself in one line that holds
    something; else `wrong: ...`."""
    if isinstance(error, ForesweepError):
        said = str(error)
        if len(said.strip()) < 10 or "Traceback" in said:
            return f"wrong: says too little: {said!r}"
        return f"refused: {said}"
    where = traceback.extract_tb(error.__traceback__)
    inside = [f for f in where if "foresweep" in f.filename] or where
    at = f"{Path(inside[-1].filename).name}:{inside[-1].lineno}" if inside else ""
    return f"wrong: {type(error).__name__} at {at}: {str(error)[:200]!r}"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path: what must not change."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.is_symlink()
    }


def chances(num: int, seed: int) -> Iterator[tuple[int, random.Random]]:
    """Numbered generators, so that each case can be made again alone; CAMPAIGN_SEED has another
    campaign than the usual one."""
    chosen = os.environ.get("CAMPAIGN_SEED", seed)
    for number in range(num):
        yield number, random.Random(f"{chosen}/{number}")
