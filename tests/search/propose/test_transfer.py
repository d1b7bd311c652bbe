"""What another model's best runs hand on: which of them, what of them, and that they come first."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import learning_model
from foresweep.data.splits import Cut
from foresweep.errors import UnknownName, UsageError
from foresweep.evaluation.yardstick import EQUALS_LAST_VALUE
from foresweep.records import Run, RunState
from foresweep.search.plan import SweepPlan
from foresweep.search.propose.modes import Proposal, load_space
from foresweep.search.propose.transfer import map_config, moved, transfer_proposals
from foresweep.search.sweep import sweep
from foresweep.space import Choice, Float, Int, SearchSpace, Spaces
from foresweep.tracker.tracker import Tracker
from known_baselines import know_baselines
from planted_model import announced
from runs import make_run
from tracker_data import CELLS, make_sweep

pytestmark = pytest.mark.xdist_group("transfer")  # its sweeps are made once

TWINS = """from dataclasses import replace

from learning_model import Learner, LearnerConfig
from foresweep.models.base import config_class, hyper


@config_class
class Config(LearnerConfig):
    lr: float = hyper(1e-3, "made up", probe=(1e-3, 1e-2), gt=0)
    batch_size: int = hyper(8, "made up", unit="windows", probe=(8, 16), ge=1)
    patience: int | None = hyper(None, "made up", unit="UNIT", probe=(None, 1), ge=1)
    d_model: int = hyper(WIDTH, "made up", stage="architecture", probe=(8, 16), ge=1)


class Model(Learner):
    name = "NAME"
    Config = Config
"""
SPACE = learning_model.SPACE + "[space.lr]\nlow = 1e-4\nhigh = 1e-2\nlog = true\n"
PLAN = SweepPlan(
    models=("guest",),
    mode="quick",
    objective="pinball",
    cut=Cut(stride=20, max_context=64),
    transfer_from="host",
)
QUICK = '[[quick]]\nname = "{0}"\nsource = "made up"\nconfig = {{ tilt = {0}, lr = {1} }}\n'


@pytest.fixture(scope="module", autouse=True)
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two families: the host four times narrower than the guest."""
    folder = tmp_path_factory.mktemp("twins")
    quick = "".join(QUICK.format(t, lr) for t, lr in ((2.0, 4e-3), (0.5, 8e-3), (1.0, 2e-3)))
    for name, width, unit in (("host", 16, "scorings"), ("guest", 64, "epochs")):
        package = folder / f"{name}_package"
        (package / "spaces").mkdir(parents=True)
        (package / "__init__.py").touch()
        text = TWINS.replace("WIDTH", str(width)).replace("UNIT", unit).replace("NAME", name)
        (package / "model.py").write_text(text)
        space = SPACE.replace('"guest"', f'"{name}"').replace(
            "[[priority]]", f"{quick}[[priority]]"
        )
        (package / "spaces" / f"{name}.toml").write_text(space)
    points = "".join(f"{n} = {n}_package.model:Model\n" for n in ("host", "guest"))
    with announced(folder, "twins", points):
        yield
    for name in [n for n in sys.modules if n.startswith(("host_package", "guest_package"))]:
        del sys.modules[name]  # other tests have a guest of their own


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the host was swept: tilts 0.5, 1 and 2, best first."""
    folder = tmp_path_factory.mktemp("place")
    plan = replace(PLAN, models=("host",), transfer_from=None)
    know_baselines(folder / "s.db", plan)
    sweep(plan, db=folder / "s.db", runs=folder / "runs")
    return folder


def swept(place: Path, plan: SweepPlan) -> list[Run]:
    done = sweep(plan, db=place / "s.db", runs=place / "runs")
    with Tracker(place / "s.db") as tracker:
        return sorted(
            tracker.get_runs("guest", sweep_id=done.sweep_id), key=lambda r: r.trial_number or 0
        )


@pytest.mark.slow
def test_the_best_runs_of_the_other_model_are_tried_first_and_say_so(place: Path) -> None:
    runs = swept(place, replace(PLAN, max_runs=4))
    with Tracker(place / "s.db") as tracker:
        hosts = sorted(tracker.get_runs("host"), key=lambda r: r.metrics["tune_pinball"])
        notes = {r.run_id: tracker.get_notes(r.run_id) for r in runs}
        plan = tracker.get_sweep().plan
    assert [r.source for r in runs] == [
        *(f"transfer: from {h.run_id}" for h in hosts), "quick: 2.0",
    ]  # fmt: skip
    assert {r.state for r in runs} == {RunState.COMPLETE}
    (note,) = notes[runs[0].run_id]
    assert "number 1 of its 3 configs by tune_pinball" in note[2]
    assert "lr 0.008 x 16/64 (widths) = 0.002" in note[2]
    assert notes[runs[3].run_id] == []
    assert plan["transfer_from"] == "host"


@pytest.mark.slow
def test_widths_scale_the_learning_rate_and_the_target_keeps_what_is_its_own(place: Path) -> None:
    runs = swept(place, replace(PLAN, max_runs=4, again=True))
    assert [r.hyperparams["lr"] for r in runs] == pytest.approx([2e-3, 5e-4, 1e-3, 4e-3])
    assert {r.hyperparams["tilt"] for r in runs[:3]} == {0.0}  # means nothing in another family
    assert {r.hyperparams["d_model"] for r in runs} == {64}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["smart", "random", "full"])
def test_they_come_before_what_any_mode_proposes_and_count(place: Path, mode: str) -> None:
    runs = swept(place, replace(PLAN, mode=mode, max_runs=4, again=True))
    assert [r.source.partition(":")[0] for r in runs][:3] == 3 * ["transfer"]
    assert len(runs) == 4


class Book:
    """A tracker with runs of toto made by hand."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker, self.sweep = tracker, make_sweep(tracker)

    def run(
        self, tune: float, *, cells: dict[str, str] | None = None, state: str = "complete",
        model: str = "toto", source: str = "quick: x", tags: tuple[str, ...] = (), **config: Any,
    ) -> Run:  # fmt: skip
        values = {**TOTO, **config}
        run = self.tracker.start_run(
            model=model, hyperparams=values, sweep_id=self.sweep.sweep_id,
            fingerprints=cells or CELLS, config_hash=str(sorted(map(str, values.items()))),
            source=source, tags=tags,
        )  # fmt: skip
        return self.tracker.finish_run(run.run_id, state, scores={"tune_pct_mae": tune})

    def proposals(self, **changed: Any) -> tuple[Proposal, ...]:
        plan = replace(REAL, **changed).checked()
        return transfer_proposals(plan, self.tracker, CELLS)


TOTO = {
    "pretrained": None, "size": "small", "embed_dim": 256, "context_length": 512, "lr": 1e-3,
    "batch_size": 64, "max_steps": 800, "warmup_fraction": 0.2, "schedule": "linear", "beta2": 0.95,
    "weight_decay": 0.1, "gradient_clip": 0.5, "ema_decay": None, "patience": 3, "sign_flip": True,
    "time_scale": 2, "precision": "fp32", "finetune": "full", "freeze": "none", "lora_r": None,
    "target": "overlapping", "patch_size": 32, "num_samples": 256, "dropout": 0.1,
}  # fmt: skip
"""A resolved config of Toto."""
REAL = SweepPlan(models=("chronos2",), transfer_from="toto")


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    with Tracker(tmp_path / "s.db") as tracker:
        yield Book(tracker)


def test_only_what_means_the_same_in_both_families_is_carried(book: Book) -> None:
    book.run(1.0)
    (proposal,) = book.proposals()
    config = dict(proposal.config)
    assert config.pop("size") == "tiny"  # the sweep's own
    assert config.pop("pretrained") is None
    assert config.pop("lr") == pytest.approx(1e-3 * 256 / 64)
    assert config.pop("max_steps") == 300  # a tiny model stops there unless said
    space = load_space("chronos2", "scratch").space
    assert config.pop("batch_size") in space.dimensions["batch_size"].values  # type: ignore[union-attr]
    carried = ("context_length", "warmup_fraction", "schedule", "weight_decay", "gradient_clip",
               "patience", "sign_flip", "time_scale", "beta2")  # fmt: skip
    assert set(config) == set(carried)
    assert config["context_length"] == 512
    assert "max_steps 800, moved to 300" in proposal.note


def test_the_best_come_first_at_most_three_and_each_once(book: Book) -> None:
    runs = [
        book.run(t, gradient_clip=c) for t, c in ((3.0, 1.0), (1.0, 0.6), (4.0, 0.7), (2.0, 0.8))
    ]
    book.run(1.5, gradient_clip=0.6, patch_size=16)  # the same in the other family's words
    order = (runs[1], runs[3], runs[0])
    assert [p.source for p in book.proposals()] == [f"transfer: from {r.run_id}" for r in order]


def test_runs_that_teach_nothing_here_hand_nothing_on(book: Book) -> None:
    kept = book.run(9.0)
    book.run(1.0, cells={**CELLS, "tune": "other"}, batch_size=1)
    book.run(1.0, cells={**CELLS, "val": "other"}, batch_size=2)
    book.run(1.0, state="failed", batch_size=4)
    book.run(1.0, source=f"reproduces: {kept.run_id}")
    book.run(1.0, pretrained="published", batch_size=5)
    book.run(1.0, finetune="none", batch_size=6)
    book.run(1.0, tags=(EQUALS_LAST_VALUE,), batch_size=7)
    book.run(float("nan"), batch_size=9)
    book.run(1.0, model="kronos", batch_size=10)
    assert [p.source for p in book.proposals()] == [f"transfer: from {kept.run_id}"]


def test_a_sweep_that_goes_on_is_handed_what_it_was_handed_when_it_began(book: Book) -> None:
    first = book.run(2.0)
    book.run(1.0, gradient_clip=0.7)
    plan = REAL.checked()
    found = transfer_proposals(plan, book.tracker, CELLS, before=first.finished_at)
    assert [p.source for p in found] == [f"transfer: from {first.run_id}"]
    assert len(transfer_proposals(plan, book.tracker, CELLS)) == 2


def test_without_such_runs_it_is_said_how_to_make_some(book: Book) -> None:
    book.run(1.0, pretrained="published")
    says = (
        r"toto: it has no complete run from scratch with a tune_pct_mae on these windows; make "
        r"some: foresweep sweep --model toto --data demo --horizon 5 --stride 9"
    )
    with pytest.raises(UsageError, match=says):
        book.proposals(cut=Cut(stride=9))


def test_several_models_take_turns_and_the_source_gets_none(book: Book) -> None:
    for n in (1.0, 2.0):
        book.run(n, gradient_clip=n)
    found = book.proposals(models=("kronos", "toto", "chronos2"))
    assert [p.model for p in found] == ["kronos", "chronos2", "kronos", "chronos2"]


def test_how_weights_are_tuned_is_carried_to_weights_alone(book: Book) -> None:
    plan = replace(REAL, pretrained="FOLDER", size=None)
    lora = {"finetune": "lora", "lora_r": 4, "lora_alpha": 8, "pretrained": "published"}
    run = make_run("toto", 1, 1.0, hyperparams={**TOTO, **lora})
    space = load_space("chronos2", "pretrained").space
    config = map_config(run, "chronos2", space, plan).config
    assert (config["finetune"], config["lora_r"]) == ("lora", 4)
    full = replace(space, dimensions={**space.dimensions, "finetune": Choice(("full", "none"))})
    config = map_config(run, "chronos2", full, plan).config
    assert not [name for name in config if name.startswith("lora_")]
    scratch = map_config(run, "chronos2", space, REAL).config
    assert "finetune" not in scratch


def test_what_is_fixed_by_set_holds_and_another_unit_is_another_thing(book: Book) -> None:
    book.run(1.0)
    spaces = Spaces(changes={"lr": Choice((5e-3,)), "dropout": Choice((0.05,))})
    (proposal,) = book.proposals(spaces=spaces)
    assert (proposal.config["lr"], proposal.config["dropout"]) == (5e-3, 0.05)
    run = make_run("host", 1, 1.0, hyperparams={"patience": 3, "batch_size": 4})
    mapped = map_config(run, "guest", SearchSpace({}), PLAN)
    assert dict(mapped.config) == {"batch_size": 4}


def test_a_width_that_is_not_known_leaves_the_learning_rate_as_it_is() -> None:
    run = make_run("host", 1, 1.0, hyperparams={"lr": 1e-3})
    mapped = map_config(run, "guest", SearchSpace({}), PLAN)
    assert mapped.config == {"lr": 1e-3}
    assert "as it is" in mapped.said[0]


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"transfer_from": "chronos2"}, UsageError, "its own runs are no transfer to chronos2"),
        ({"transfer_from": "last-value"}, UsageError, "a baseline is not trained"),
        ({"transfer_from": "totto"}, UnknownName, "did you mean 'toto'"),
        ({"transfer_from": "all"}, UsageError, "give one model"),
        ({"models": ("drift",)}, UsageError, "no transfer to drift"),
        ({"mode": "zero-shot", "pretrained": "published"}, UsageError, "no effect in mode zero"),
        ({"proposals": (Proposal("chronos2", {}, "by hand"),), "mode": "by hand"}, UsageError,
         "no effect in mode by hand"),
    ],
)  # fmt: skip
def test_a_transfer_that_cannot_be_is_refused(
    changed: dict[str, Any], error: type[UsageError], says: str
) -> None:
    with pytest.raises(error, match=says):
        replace(REAL, **changed).checked()


DIMENSIONS = st.one_of(
    st.builds(lambda a, b: Float(a, a + b, False), st.floats(0.1, 9), st.floats(0.1, 9)),
    st.builds(lambda a, n, s: Int(a, a + n, s, False), st.integers(0, 9), st.integers(1, 40),
              st.integers(1, 7)),
    st.builds(lambda v: Choice(tuple(v)), st.lists(st.integers(0, 50), min_size=1, unique=True)),
)  # fmt: skip


@given(DIMENSIONS, st.integers(-10, 60))
def test_a_value_is_moved_to_the_nearest_that_the_space_has(
    dimension: Float | Int | Choice, value: int
) -> None:
    found = moved(value, dimension)
    if isinstance(dimension, Choice):
        every = list(dimension.values)
    elif isinstance(dimension, Int):
        every = list(range(dimension.low, dimension.high + 1, dimension.step))
    else:
        assert found == min(max(value, dimension.low), dimension.high)
        return
    assert found in every
    assert abs(found - value) == min(abs(v - value) for v in every)
    assert moved(found, dimension) == found


def test_what_a_space_has_nothing_like_is_left_to_the_model() -> None:
    assert moved("wsd", Choice(("cosine", "linear"))) is None
    assert moved("wsd", Float(0.0, 1.0, False)) is None
    assert moved("wsd", None) == "wsd"
    assert moved(True, Choice((False, True))) is True
