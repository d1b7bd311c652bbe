"""Up to when weights know the world: what is known, what is said, what a card says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from foresweep.errors import UsageError
from foresweep.models.baselines.naive import Drift
from foresweep.models.checkpoint import PUBLISHED, Cutoff, weights_cutoff, write_checkpoint


@dataclass(frozen=True)
class Config:
    pretrained: str | None


class Toto(Drift):
    name = "toto"


class Kronos(Drift):
    name = "kronos"


class Guest(Drift):
    """A plug-in that knows its own weights."""

    name = "guest"

    def pretrain_cutoff(self, config: Any) -> Cutoff | None:
        return Cutoff("2025-01-01", "its authors") if config.pretrained == "published" else None


def test_from_scratch_there_is_nothing_to_know() -> None:
    assert weights_cutoff(Toto(), Config(None)) is None


def test_published_weights_are_known_by_their_names() -> None:
    assert weights_cutoff(Kronos(), Config("published")) == PUBLISHED["kronos"]
    with_tokenizer = Config("NeoQuasar/Kronos-base+NeoQuasar/Kronos-Tokenizer-base")
    assert weights_cutoff(Kronos(), with_tokenizer) == PUBLISHED["kronos"]
    assert weights_cutoff(Toto(), Config("NeoQuasar/Kronos-base")) is None
    for short in ("mini", "small", "base"):
        assert weights_cutoff(Kronos(), Config(short)) == PUBLISHED["kronos"]
    assert weights_cutoff(Toto(), Config("mini")) is None


def test_a_folder_that_bears_the_name_of_published_weights_is_not_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mini", "NeoQuasar/Kronos-mini"):
        (tmp_path / name).mkdir(parents=True)
        assert weights_cutoff(Kronos(), Config(name)) is None


def test_a_plugin_knows_its_own_weights() -> None:
    assert weights_cutoff(Guest(), Config("published")) == Cutoff("2025-01-01", "its authors")
    assert weights_cutoff(Guest(), Config("elsewhere")) is None


def test_a_folder_is_as_old_as_is_said(tmp_path: Path) -> None:
    assert weights_cutoff(Toto(), Config(str(tmp_path))) is None
    found = weights_cutoff(Toto(), Config(str(tmp_path)), "2023-12-31")
    assert found == Cutoff("2023-12-31", "said with --pretrain-cutoff")


def test_nobody_can_say_less_than_is_known() -> None:
    found = weights_cutoff(Kronos(), Config("published"), "2020-01-01")
    assert found == PUBLISHED["kronos"]
    later = weights_cutoff(Kronos(), Config("published"), "2026-01-01")
    assert later is not None
    assert later.date == "2026-01-01"


def test_our_checkpoint_knows_what_it_and_its_parents_were_chosen_on(tmp_path: Path) -> None:
    card = {
        "run_id": "toto_1",
        "tuned_until": "2010-01-05T00:00:00",
        "selected_until": "2011-06-30T00:00:00",
        "pretrain_cutoff": {"date": "2009-01-01", "source": "x"},
    }
    own = tmp_path / "own"
    write_checkpoint(own, model="toto", config={}, card=card)
    found = weights_cutoff(Toto(), Config(str(own)))
    assert found is not None
    assert (found.date, "toto_1" in found.source) == ("2011-06-30", True)
    child = tmp_path / "child"
    parent = {"date": "2015-01-01", "source": "x"}
    write_checkpoint(child, model="toto", config={}, card={**card, "pretrain_cutoff": parent})
    found = weights_cutoff(Toto(), Config(str(child)))
    assert found is not None
    assert found.date == "2015-01-01"


def test_what_is_no_date_is_refused() -> None:
    with pytest.raises(UsageError, match="2024-05-31"):
        weights_cutoff(Toto(), Config("published"), "last May")
