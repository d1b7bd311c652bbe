"""What is read at once and typed is what reading line by line as text gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foresweep.data.reading import formats
from foresweep.data.reading.sources import Loaded, load_panel
from panels import walk_frame, weekdays

FRAME = walk_frame("X", weekdays(120)).drop("item_id")
PLAIN = FRAME.write_csv(datetime_format="%Y-%m-%d")
ROW = PLAIN.splitlines()[40]
DAY = ROW[:10]


def changed(old: str, new: str) -> str:
    assert old in PLAIN
    return PLAIN.replace(old, new)


FILES = {
    "plain": PLAIN,
    "semicolons": PLAIN.replace(",", ";"),
    "carriage returns": PLAIN.replace("\n", "\r\n"),
    "a missing price": changed(ROW, f"{DAY},,1,1,1,5"),
    "a word for a number": changed(ROW, f"{DAY},n/a,1,1,1,5"),
    "spaces": changed(ROW, f"{DAY}, 1.5, 2, 1, 1.5, 5"),
    "a quoted thousand": changed(ROW, f'{DAY},"1,234.5","1,234.5","1,234.5","1,234.5",5'),
    "a dividend line": PLAIN + f"{DAY},0.24 Dividend,,,,\n",
    "a footer": PLAIN + "Downloaded from somewhere,,,,,\n",
    "a day that is none": changed(DAY, "2015-02-30"),
    "a day of another century": changed(DAY, "1815-02-03"),
    "a clock": FRAME.write_csv(datetime_format="%Y-%m-%d %H:%M:%S"),
    "an empty line": PLAIN + "\n\n",
    "a column more": PLAIN.replace("\n", ",x\n"),
    "a wider row": changed(ROW, ROW + ",7"),
}


@pytest.mark.parametrize("name", FILES)
def test_plain_reading_gives_what_reading_as_text_gives(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for item in "AB":  # the second is read by the layout of the first
        (tmp_path / f"{item}.csv").write_text(FILES[name], newline="")

    def loaded() -> Loaded | str:
        try:
            return load_panel(tmp_path)
        except Exception as error:  # compared, not swallowed
            return f"{type(error).__name__}: {error}"

    quick = loaded()
    monkeypatch.setattr(formats, "read_plain", lambda *_: None)
    slow = loaded()
    if isinstance(slow, str) or isinstance(quick, str):
        assert quick == slow
    else:
        assert (quick.panel.hash, quick.report) == (slow.panel.hash, slow.report)


def test_a_plain_large_file_is_read_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "A.csv").write_text(PLAIN)
    small = load_panel(tmp_path).panel
    monkeypatch.setattr(formats, "LARGE", 0)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("read into memory"))
    large = load_panel(tmp_path).panel
    assert large.hash == small.hash
    assert np.array_equal(large.stacked, small.stacked)
