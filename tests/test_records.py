from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foresweep import records
from foresweep.data.splits import PARTS
from foresweep.records import Run, RunState, is_sealed, split_name


def make(**changed: Any) -> Run:
    known: dict[str, Any] = {
        "run_id": "toto_1",
        "model_name": "toto",
        "created_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "hyperparams": {},
        "metrics": {},
    }
    return Run(**known | changed)


def test_the_parts_are_those_of_the_splits() -> None:
    assert records.PARTS == PARTS


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("val_pct_mae", ("val", "pct_mae")),
        ("tune_r2", ("tune", "r2")),
        ("train_loss", ("train", "loss")),
        ("test_pct_mae", ("test", "pct_mae")),
        ("Test-MAE", ("test", "MAE")),
        ("test/mae", ("test", "mae")),
        ("test", ("test", "test")),
        ("duration", ("", "duration")),
        ("value_at_risk", ("", "value_at_risk")),
        ("val_", ("", "val_")),
        ("testing_error", ("", "testing_error")),
        ("latest_pct_mae", ("", "latest_pct_mae")),
    ],
)
def test_a_full_name_splits_into_part_and_metric(name: str, parts: tuple[str, str]) -> None:
    assert split_name(name) == parts


@given(st.sampled_from(["test", "Test", "TEST"]), st.sampled_from("_-/. "), st.text())
def test_every_spelling_of_a_test_score_is_sealed(word: str, separator: str, rest: str) -> None:
    assert is_sealed(f"{word}{separator}{rest}")
    assert split_name(f"{word}{separator}{rest}")[0] == "test"


@given(st.sampled_from(PARTS), st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True))
def test_part_and_metric_come_back_from_the_full_name(part: str, metric: str) -> None:
    assert split_name(f"{part}_{metric}") == (part, metric)


def test_a_run_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().state = RunState.FAILED  # type: ignore[misc]


def test_a_failed_score_reads_as_none() -> None:
    run = make(metrics={"val_r2": math.nan, "val_pct_mae": 1.5})
    assert (run.score("val_r2"), run.score("val_pct_mae"), run.score("val_mase")) == (
        None,
        1.5,
        None,
    )


def test_only_waiting_and_running_runs_are_open() -> None:
    assert {s for s in RunState if not s.is_final} == {"waiting", "running"}


def test_the_fingerprint_is_that_of_val() -> None:
    assert make(fingerprints={"tune": "a", "val": "b"}).fingerprint == "b"
    assert make().fingerprint == ""


def test_a_checkpoint_counts_only_while_it_is_on_disk(tmp_path: Any) -> None:
    assert make(checkpoint_path=str(tmp_path)).has_checkpoint_files
    assert not make(checkpoint_path=str(tmp_path / "gone")).has_checkpoint_files
    assert not make().has_checkpoint_files


def test_the_timestamp_is_iso_and_aware() -> None:
    assert make().timestamp == "2026-01-02T03:04:05+00:00"
