"""The page of a sweep: how far it is, what it was counted as, what it drew from and from where."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from foresweep.reporting.blocks import Facts, Page, Table, Words
from foresweep.reporting.overview import overview
from foresweep.reporting.sweeppage import seconds_left, sweep_page
from foresweep.reporting.views import Asked, Links, Site
from foresweep.search.plan import SweepPlan, as_record
from foresweep.space import Choice, Spaces
from foresweep.tracker.tracker import Tracker
from judged_sweep import Planted, plant

SKILLS = {"good": 0.12, "fair": 0.02, "bad": -0.1}
HYPER = {n: {"lr": 10.0**-k, "loss": ["huber", "mse"][k % 2]} for k, n in enumerate(SKILLS, 2)}
SPACE = (
    'model = "toto"\n[space]\nlr = {low = 1e-4, high = 1e-2, log = true}\nbatch_size = [8, 16]\n'
)


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    folder = tmp_path_factory.mktemp("sweep")
    with Tracker(folder / "sweeps.db") as tracker:
        yield plant(tracker, folder / "runs", SKILLS, hyperparams=HYPER, items=3, origins=30)


def page_of(made: Planted, sweep_id: str | None = None) -> Page:
    site = Site(made.tracker, made.folder, Links(is_live=True))
    return sweep_page(site.sweep(sweep_id or made.sweep.sweep_id), Asked())


def words_of(page: Page) -> str:
    return " ".join(b.text for s in page.sections for b in s.blocks if isinstance(b, Words))


def tiles_of(page: Page) -> dict[str, Any]:
    (tiles,) = (
        b for s in page.sections for b in s.blocks if isinstance(b, Facts) and b.kind == "tiles"
    )
    return {name: cell.text for name, cell in tiles.pairs}


def column(table: Table, label: str) -> list[str]:
    k = [c.label for c in table.columns].index(label)
    return [row[k].text for row in table.rows]


def test_what_a_verdict_would_count_and_what_was_not_trained_again_is_said(made: Planted) -> None:
    assert f"A verdict counts {len(SKILLS)} trials, of this sweep" in words_of(page_of(made))
    made.tracker.heads.say(made.sweep.sweep_id, skipped=["a", "b"], planned=9, workers=4)
    page = page_of(made)
    assert "2 configs were trained before on these windows" in words_of(page)
    other = plant(made.tracker, made.folder, {"else": 0.0}, tag="two", items=3, origins=30)
    assert f"counts {len(SKILLS) + 1} trials, of 2 sweeps" in words_of(page_of(made))
    assert other.sweep.sweep_id != made.sweep.sweep_id


def test_the_overview_says_of_each_sweep_who_is_at_work_and_how_long_it_may_take(
    made: Planted,
) -> None:
    def row() -> list[str]:
        page = overview(Site(made.tracker, made.folder, Links(is_live=True)), Asked())
        table = page.tables()["sweeps"]
        return [column(table, label)[0] for label in ("at work", "left")]

    made.tracker.heads.say(made.sweep.sweep_id, planned=9, workers=4)
    made.tracker.start_run(
        model="toto", hyperparams={}, sweep_id=made.sweep.sweep_id, trial_number=7
    )
    assert row()[0] == "1 of 4 workers"
    assert row()[1] != "–"
    made.tracker.finish_sweep(made.sweep.sweep_id, "complete")
    assert row() == ["", "–"]


def test_a_running_sweep_says_who_is_at_work_and_how_long_it_may_take(made: Planted) -> None:
    sweep_id = made.sweep.sweep_id
    made.tracker.heads.say(sweep_id, planned=9, workers=4)
    made.tracker.start_run(model="toto", hyperparams={}, sweep_id=sweep_id, trial_number=7)
    tiles = tiles_of(page_of(made))
    assert tiles["at work"] == "1 of 4 workers"
    assert tiles["trials"] == "3 of 9"  # the three baselines have numbers, too
    view = Site(made.tracker, made.folder, Links(is_live=True)).sweep(sweep_id)
    first = min(r.started_at for r in made.runs.values() if r.started_at)
    left = seconds_left(view)
    assert left is not None
    spent = (datetime.now(UTC) - first).total_seconds()
    assert left == pytest.approx(2 * spent, abs=2 * 60)  # three of nine are done
    assert left > 0
    made.tracker.finish_sweep(sweep_id, "complete")
    ended = tiles_of(page_of(made))
    assert "at work" not in ended
    assert "time left" not in ended


def test_the_time_left_grows_with_what_is_left(made: Planted) -> None:
    site = Site(made.tracker, made.folder, Links(is_live=True))
    found = []
    for planned in (3, 6, 30):
        made.tracker.heads.say(made.sweep.sweep_id, planned=planned)
        found.append(seconds_left(site.sweep(made.sweep.sweep_id)))
    assert found[0] == 0
    assert 0 < found[1] < found[2]  # type: ignore[operator]
    assert timedelta(seconds=found[2] or 0) < timedelta(hours=1)


def test_each_range_says_who_gave_it(made: Planted) -> None:
    assert set(column(page_of(made).tables()["space-toto"], "from")) == {"built in, scratch"}
    spaces = Spaces({"toto": SPACE}, {"toto": "mine.toml"}, {"batch_size": Choice((4, 8))})
    plan = as_record(SweepPlan(models=("toto",), mode="random", spaces=spaces))
    made.tracker.heads.say(made.sweep.sweep_id, asked=plan)
    table = page_of(made).tables()["space-toto"]
    said = dict(zip(column(table, "hyperparameter"), column(table, "from"), strict=True))
    assert said == {"lr": "mine.toml", "batch_size": "--set"}
    ranges = dict(zip(column(table, "hyperparameter"), column(table, "range"), strict=True))
    assert ranges == {"lr": "0.0001 … 0.01, by logs", "batch_size": "4 | 8"}


def test_what_the_gate_found_stands_on_the_page_by_rule(made: Planted) -> None:
    table = page_of(made).tables()["rules"]
    assert column(table, "rule") == ["survivorship"]
    assert column(table, "findings") == ["1"]


def test_the_same_question_at_other_horizons_stands_side_by_side(made: Planted) -> None:
    other = plant(
        made.tracker, made.folder, {"far": 0.3}, tag="far", horizon=10, items=3, origins=30
    )
    for sweep in (made.sweep, other.sweep):
        made.tracker.heads.say(sweep.sweep_id, asked={"family": "f1"})
    table = page_of(made).tables()["family"]
    assert column(table, "horizon") == ["5 bars", "10 bars"]
    assert column(table, "sweep") == [made.sweep.sweep_id, other.sweep.sweep_id]
    skills = [float(s.split()[0]) for s in column(table, "skill")]
    assert skills[0] == pytest.approx(100 * (made.runs["good"].score("val_skill") or 0), abs=0.01)
    assert column(table, "verdict") == ["not asked", "not asked"]


def test_each_hyperparameter_alone_is_drawn_by_optuna(made: Planted) -> None:
    figures = page_of(made).figures()
    spec = figures["slices-toto"].build()
    assert {a["title"]["text"] for n, a in spec["layout"].items() if n.startswith("xaxis")} == {
        "lr", "loss",
    }  # fmt: skip
    values = [v for t in spec["data"] for v in t["y"]]
    assert len(values) == 2 * len(SKILLS)
