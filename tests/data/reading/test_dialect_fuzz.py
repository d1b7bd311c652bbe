"""Any combination of dialects over known bars: read right or refused, never read wrongly."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dialects import CHOICES, Form, write
from foresweep.data.reading.sources import load_panel
from foresweep.errors import DataError, ForesweepError

FORMS = st.builds(
    Form,
    **{name: st.sampled_from(values) for name, values in CHOICES.items()},
    order=st.permutations(range(6)).map(tuple),
)


def outcome(form: Form, folder: Path) -> str:
    """right, wrong: ... or refused: ..."""
    for old in folder.iterdir():
        old.unlink()
    path, frame = write(form, folder)
    try:
        loaded = load_panel(path)
    except DataError as error:
        return f"refused: {error}"
    except ForesweepError as error:
        return f"wrong: {type(error).__name__}: {error}"
    panel = loaded.panel
    wanted = frame.index.to_numpy().astype("datetime64[ns]")
    if form.date == "excel":
        tolerance = np.timedelta64(2, "ms")
        same = (
            len(panel.timeline) == len(wanted)
            and (np.abs(panel.timeline - wanted) < tolerance).all()
        )
    else:
        same = np.array_equal(panel.timeline, wanted)
    if panel.num_items != 1 or not same:
        return f"wrong: times {panel.timeline[:3]} of {len(panel.timeline)}"
    got = panel.bars[0].values
    values = frame.to_numpy()
    if form.suffix:
        values = values.copy()
    if got.shape != values.shape or not np.allclose(got, values, rtol=1e-9):
        row = int(np.argmax(~np.isclose(got, values, rtol=1e-9).all(axis=1)))
        return f"wrong: {got[row]} for {values[row]}"
    return "right"


SEEN: Counter[str] = Counter()


def _campaign(num: int) -> None:
    SEEN.clear()

    @given(FORMS)
    @settings(
        max_examples=num, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    def try_one(form: Form) -> None:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            found = outcome(form, Path(folder))
        SEEN[found.split(":")[0]] += 1
        if os.environ.get("FUZZ_SHOW") and found != "right":
            print(found[:300], form)
        assert not found.startswith("wrong"), (found, form)

    try_one()
    assert SEEN["right"] >= 0.95 * SEEN.total(), SEEN


def test_any_file_is_read_right_or_refused() -> None:
    _campaign(100)


@pytest.mark.soak
def test_any_of_two_thousand_files_is_read_right_or_refused() -> None:
    _campaign(2000)
