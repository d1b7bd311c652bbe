"""`licences.md`: under which licence each pinned package stands, as its own metadata say."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from foresweep.models.hub import published_ids
from foresweep.models.licence import PUBLISHED

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("licences.md")
LONGEST = 60  # characters; beyond, the field holds a licence's whole text
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "2-clause BSD": "BSD-2-Clause",
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache Software License 2.0": "Apache-2.0",
    "ISC License": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
TEXTS = {"Apache License": "Apache-2.0", "MIT License": "MIT", "BSD 3-Clause": "BSD-3-Clause"}
HEAD = """# Licences

foresweep is Apache-2.0 and contains none of the packages that it uses; each stands under its own
licence. This table is written by `python docs/generate.py` from the metadata of the versions in
`constraints.txt`.

- Not permissive are psycopg (extra `postgres`: LGPL 3) and, file by file, what is under the MPL 2.
  All else is MIT, BSD, Apache-2.0 or the like.
- **Weights** have licences of their own. A run's card names them (`weights_licence`), and
  `foresweep promote` asks about them; what is trained from scratch is yours."""


def page() -> str:
    """The page. A package that is not installed here as it is pinned keeps the row it had."""
    weights = [
        f"| `{name}` | {licence.name} | {licence.source} |"
        for family, licence in PUBLISHED.items()
        for name in published_ids(family)
    ]
    before = dict(_rows_written())
    rows = []
    for name, version in pins():
        licence = _licence(name, version) or before.get((name, version), "not installed here")
        rows.append(f"| {name} | {version} | {licence} | {', '.join(_wanted_by(name))} |")
    lines = [
        *(HEAD, "", "| weights | licence | who says so |", "| --- | --- | --- |", *weights, ""),
        "| package | version | licence | named by pyproject.toml in |",
        "| --- | --- | --- | --- |",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def pins() -> list[tuple[str, str]]:
    """Name and version of every pinned package."""
    text = (ROOT / "constraints.txt").read_text("utf-8")
    return re.findall(r"^([\w.-]+)==(\S+)$", text, flags=re.MULTILINE)


def _licence(name: str, version: str) -> str | None:
    """What the metadata of this version say; None where it is not installed."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return None
    if found.version.partition("+")[0] != version:
        return None
    said = found.metadata
    if expression := said.get("License-Expression"):
        return expression
    field = (said.get("License") or "").strip()
    if field and field != "UNKNOWN" and "\n" not in field and len(field) <= LONGEST:
        return SPDX.get(field, field)
    classified = [c for c in said.get_all("Classifier") or [] if c.startswith("License ::")]
    if classified:
        names = [c.rpartition(" :: ")[2] for c in classified]
        return " AND ".join(SPDX.get(n, n) for n in names)
    return _of_text(found) or "not stated"


def _of_text(found: Distribution) -> str | None:
    """The licence whose text lies in the package."""
    for file in found.files or []:
        if "licen" in file.name.lower() and ".dist-info" in str(file):
            begins = file.read_text("utf-8")[:400]
            for title, name in TEXTS.items():
                if title in begins:
                    return f"{name} (its text)"
    return None


def _wanted_by(name: str) -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {"foresweep": project["dependencies"], **project["optional-dependencies"]}
    return [
        extra
        for extra, wanted in extras.items()
        if any(_key(re.split(r"[\[<>=!~ ;]", one)[0]) == _key(name) for one in wanted)
    ]


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _rows_written() -> Iterator[tuple[tuple[str, str], str]]:
    if PAGE.is_file():
        for row in re.findall(
            r"^\| ([^`|]+) \| (\S+) \| (.+?) \| .*\|$", PAGE.read_text("utf-8"), re.M
        ):
            yield (row[0], row[1]), row[2]
