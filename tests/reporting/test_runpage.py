"""The page of a run: what was changed, where it wins and loses, what it is related to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from foresweep.cli.main import main
from foresweep.errors import NotFound
from foresweep.models.base import TrainingStage
from foresweep.models.baselines.naive import Drift
from foresweep.reporting import runpage
from foresweep.reporting.blocks import Page, Words
from foresweep.reporting.runpage import run_page
from foresweep.reporting.views import Asked, Links, Site
from foresweep.tracker.hiding import remove_tag
from foresweep.tracker.tracker import Tracker
from judged_sweep import Planted, plant

HYPER: dict[str, dict[str, Any]] = {
    "good": {"lr": 0.5, "batch_size": 32, "odd": [1, 2]},
    "fair": {},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    folder = tmp_path_factory.mktemp("run")
    with Tracker(folder / "sweeps.db") as tracker:
        yield plant(tracker, folder / "runs", {"good": 0.12, "fair": 0.02}, hyperparams=HYPER,
                    items=3, configs={"good": "one", "fair": "two"})  # fmt: skip


def page_of(made: Planted, run_id: str) -> Page:
    site = Site(made.tracker, made.folder, Links(is_live=True), can_write=True)
    return run_page(site, made.tracker.get_run(run_id), Asked())


def rows_of(page: Page, table: str) -> list[dict[str, str]]:
    found = page.tables()[table]
    names = [c.label for c in found.columns]
    return [dict(zip(names, (c.text for c in row), strict=True)) for row in found.rows]


def new_run(made: Planted, source: str, name: str = "fair", **fields: Any) -> str:
    """A complete run on the same windows."""
    run = made.tracker.start_run(
        model=fields.pop("model", "toto"),
        hyperparams=fields.pop("hyperparams", {}),
        sweep_id=made.sweep.sweep_id,
        fingerprints=made.sweep.fingerprints,
        source=source,
        **fields,
    )
    made.tracker.finish_run(run.run_id, "complete", scores={"val_pct_mae": 2.0, "val_skill": 0.01})
    return run.run_id


def test_a_config_stands_beside_the_defaults_with_what_was_changed(made: Planted) -> None:
    page = page_of(made, made.id("good"))
    rows = {r["hyperparameter"]: r for r in rows_of(page, "config")}
    assert rows["lr"]["value"] == "0.5"
    assert float(rows["lr"]["default"]) < 0.1
    assert rows["lr"]["changed"] == "changed"
    assert rows["odd"]["default"] == "–"  # the model knows no such name
    default = rows["batch_size"]["default"]
    assert rows["batch_size"]["changed"] == ("" if default == "32" else "changed")
    words = [b.text for s in page.sections for b in s.blocks if isinstance(b, Words)]
    assert any(w.startswith("Changed from the model's defaults: lr") for w in words)


def test_errors_stand_by_month_and_regime_beside_last_value(made: Planted) -> None:
    figures = page_of(made, made.id("good")).figures()
    spec = figures["by-month"].build()
    months = spec["data"][0]["x"]
    assert months[0] == "2016-06"
    assert months == sorted(months)
    assert len(months) > 10
    assert len(spec["data"][1]["x"]) == len(months)  # last-value
    assert figures["by-regime"].build()["data"][0]["x"] == ["calm", "usual", "wild"]


def test_what_a_run_comes_from_and_what_comes_of_it_are_told(made: Planted) -> None:
    good = made.id("good")
    relatives = {
        "was mapped to": new_run(made, f"transfer: from {good}", model="kronos"),
        "was trained again as": new_run(made, f"continues: {good}"),
        "is a member of": new_run(
            made, "ensemble: greedy of 2", model="ensemble",
            hyperparams={"members": {good: 0.75, made.id("fair"): 0.25}},
        ),
        "has as another seed": new_run(made, "random: x", config_hash="one", seed=7),
    }  # fmt: skip
    told = {r["this run"]: r for r in rows_of(page_of(made, good), "relations")}
    assert {word: told[word]["run"] for word in relatives} == relatives
    assert told["is a member of"]["how"] == "weight 0.75"
    assert told["has as another seed"]["seed"] == "7"
    back = {
        "was mapped to": "was mapped from", "was trained again as": "goes on from",
        "is a member of": "mixes", "has as another seed": "has as another seed",
    }  # fmt: skip
    for word, run_id in relatives.items():
        theirs = rows_of(page_of(made, run_id), "relations")
        assert (back[word], good) in [(r["this run"], r["run"]) for r in theirs], word


def test_a_run_without_relations_says_so(made: Planted) -> None:
    run_id = made.tracker.log_run("by-hand", {"lr": 0.1}, {"val_pct_mae": 1.0})
    page = page_of(made, run_id)
    assert "relations" not in page.tables()
    assert any(
        "stands alone" in b.text for s in page.sections for b in s.blocks if isinstance(b, Words)
    )


def test_a_tag_is_taken_off_again(made: Planted, capsys: pytest.CaptureFixture[str]) -> None:
    run_id, db = made.id("fair"), str(made.tracker.store.path)
    for tag in ("paper", "look"):
        made.tracker.add_tag(run_id, tag)
    assert remove_tag(made.tracker, run_id, "look").tags == ("paper",)
    with pytest.raises(NotFound, match="no tag 'look'"):
        remove_tag(made.tracker, run_id, "look")
    with pytest.raises(SystemExit):
        main(["tag", run_id, "paper", "--remove", "--db", db])
    assert "no tag" in capsys.readouterr().out
    assert made.tracker.get_run(run_id).tags == ()


def test_a_plug_in_says_which_stages_its_training_has(
    made: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Staged(Drift):
        def stages(self, config: Any) -> tuple[TrainingStage, ...]:
            names = ("encoder", "decoder", "head")
            return tuple(TrainingStage(3, name, f"{name}'s own") for name in names)

    monkeypatch.setattr(runpage, "get_model", lambda name: Staged())
    run = made.tracker.start_run(model="staged", hyperparams={})
    made.tracker.log_steps(run.run_id, {at: {"train_loss": 1.0 / at} for at in range(1, 10)})
    page = page_of(made, made.tracker.finish_run(run.run_id, "complete", scores={}).run_id)
    words = [b.text for s in page.sections for b in s.blocks if isinstance(b, Words)]
    assert any(
        "to step 3 the encoder's (encoder's own), to step 6 the decoder's" in w
        and "from there on the head's" in w
        for w in words
    )
    layout = page.figures()["curve-train_loss"].build()["layout"]
    assert [shape["x0"] for shape in layout["shapes"]] == [3, 6]


@pytest.mark.parametrize(
    ("model", "config", "step"),
    [
        ("kronos", {"max_steps": 10, "tokenizer_fraction": 0.4}, 4),
        ("kronos", {"max_steps": 10, "freeze_tokenizer": True}, None),
        ("kronos", {"max_steps": 10, "tokenizer_fraction": 0.4, "finetune": "none"}, None),
        ("kronos", {"max_steps": 10, "by_hand": 1}, None),
        ("toto", {"max_steps": 10, "tokenizer_fraction": 0.4}, None),
    ],
)
def test_the_page_says_where_a_loss_ends_and_another_begins(
    made: Planted, model: str, config: dict[str, Any], step: int | None
) -> None:
    run = made.tracker.start_run(model=model, hyperparams=config)
    steps = {at: {"train_loss": 1.0 / at} for at in range(1, 11)}
    made.tracker.log_steps(run.run_id, steps)
    made.tracker.finish_run(run.run_id, "complete", scores={})
    page = page_of(made, run.run_id)
    words = [b.text for s in page.sections for b in s.blocks if isinstance(b, Words)]
    layout = page.figures()["curve-train_loss"].build()["layout"]
    assert [shape["x0"] for shape in layout.get("shapes", [])] == ([] if step is None else [step])
    assert any(f"The loss is to step {step} the tokenizer's" in w for w in words) == bool(step)
