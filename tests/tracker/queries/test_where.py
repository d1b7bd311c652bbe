"""Expressions: what they find, how they refuse, and that no input becomes SQL or a traceback."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from foresweep.errors import UnknownName, UsageError
from foresweep.records import Run
from foresweep.tracker.storage import schema
from foresweep.tracker.tracker import Tracker
from tracker_data import make_sweep

Finished = Callable[..., Run]


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
)
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tracker]:
    """Four runs: a, b and c of a sweep, and d, which failed and has hardly anything."""
    if request.param == "postgresql":
        place = request.getfixturevalue("new_database")()
    else:
        place = tmp_path_factory.mktemp("filled") / "filled.db"
        shutil.copy(request.getfixturevalue("empty"), place)
    with Tracker(place) as tracker:
        fill(tracker)
        yield tracker


def fill(tracker: Tracker) -> None:
    sweep = make_sweep(tracker)
    made = [
        ("a", "toto", {"lr": 1e-5, "loss": "huber", "freeze": True, "é w": 3}, 1.0, 0.02),
        ("b", "toto", {"lr": 1e-3, "loss": "quantile", "freeze": False}, 2.0, -0.1),
        ("c", "last-value", {"lr": "auto", "layers": [1, 2], "opt.lr": 5}, 1.5, 0.0),
        ("d", "kronos", {"lr": None}, None, None),
    ]
    for name, model, hyperparams, mae, skill in made:
        run = tracker.start_run(
            model=model,
            hyperparams=hyperparams,
            sweep_id=sweep.sweep_id if mae else None,
            seed=len(name) + ord(name),
            notes=f"run {name}: 100% sure",
            tags=["good", name] if name < "c" else [],
        )
        for step, value in enumerate((3.0, 1.0, 2.0), start=1):
            tracker.log(run.run_id, step, {"tune_pct_mae": value + ord(name), "tune_skill": value})
        scores = {"val_pct_mae": mae, "val_skill": skill, "test_pct_mae": 1.0, "odd": 3.0}
        tracker.finish_run(
            run.run_id,
            "complete" if mae else "failed",
            scores={n: v for n, v in scores.items() if v is not None},
            checkpoint_path="x" if name == "a" else None,
        )
    with tracker.store.write() as connection:
        first = schema.runs.c.notes.startswith("run a")
        connection.execute(update(schema.runs).where(first).values(git_commit="abc1234"))


def found(tracker: Tracker, where: str) -> str:
    """The letters of the runs found, in order of the alphabet."""
    runs = tracker.get_runs(where=where)
    return "".join(sorted((run.notes or "")[4] for run in runs))


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("lr < 1e-4", "a"),
        ("lr<1e-4 and val_skill>0", "a"),
        ("1e-6 < lr <= 1e-3", "ab"),
        ("1e-4 > lr", "a"),
        ("lr = 'auto'", "c"),
        ("lr == 'auto' or lr = .001", "bc"),
        ("lr != 1e-5", "b"),
        ("not lr = 1e-5", "b"),  # a run without a number passes no comparison
        ("lr is null", "d"),
        ("lr is not null", "abc"),
        ("layers is null", "abd"),
        ("freeze = true", "a"),
        ("freeze != TRUE", "b"),
        ("loss in (huber, 'quantile')", "ab"),
        ("loss not in ('huber')", "b"),
        ("lr in (1e-5, 'auto')", "ac"),
        ("hp('é w') >= 3", "a"),
        ("é > 1 or lr=1e-5", None),
        ("opt.lr = 5", "c"),
        ("model = toto", "ab"),
        ("model in (last-value, kronos)", "cd"),
        ("model = 'toto' AND NOT (val_pct_mae > 1)", "a"),
        ("state = failed", "d"),
        ("tag = good", "ab"),
        ("tag != good", "cd"),
        ("tag in (a, b) and tags is not null", "ab"),
        ("tag is null", "cd"),
        ("tag contains OO", "ab"),
        ("val_pct_mae is null", "d"),
        ("val_skill < val_pct_mae", "abc"),
        ("val_pct_mae < lr", ""),
        ("odd = 3", "abcd"),
        ("score(val_pct_mae) between", None),
        ("best(tune_pct_mae) <= 99", "ab"),
        ("lowest(tune_pct_mae) = 98", "a"),
        ("last(tune_pct_mae) = 99", "a"),
        ("best(tune_skill) = 3 and highest(tune_skill) = 3", "abcd"),
        ("seed = 98 or seed in (99)", "ab"),
        ("created_at > 2020-01-01 and created_at <= '2999-12-31T23:59:59+02:00'", "abcd"),
        ("created_at < 2020-01-01T10:00", ""),
        ("has_checkpoint = true", "a"),
        ("is_baseline = true", "c"),
        ("notes contains '100% SURE'", "abcd"),
        ("notes contains '10__'", ""),
        ("'100% sure' in notes and 'a' not in tag", "bcd"),
        ("notes not contains 'run a'", "bcd"),
        ("a in tag", None),
        ("sweep is null", "d"),
        ("run_id contains ''", "abcd"),
        ("model\t=\ntoto", "ab"),
        ("lr < 123456789012345678901234567890", "ab"),
    ],
)
def test_an_expression_finds_the_runs_it_says(
    filled: Tracker, where: str, names: str | None
) -> None:
    if names is None:
        with pytest.raises(UsageError):
            found(filled, where)
    else:
        assert found(filled, where) == names


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("test_pct_mae < 1", "sealed"),
        ("val_skill > 0 and Test/mae < 1", "character 19"),
        ("best(test_pct_mae) < 1", "sealed"),
        ("lr < test_pct_mae", "sealed"),
        ("vall_skill > 0", "did you mean 'val_skill'"),
        ("loss = 'huber' and lerning_rate > 0", "character 20"),
        ("lss = 'huber'", "did you mean 'loss'"),
        ("loss = hubre", "unknown name 'hubre'"),
        ("bets(tune_skill) > 1", "did you mean 'best'"),
        ("best(tune_skil) > 1", "did you mean 'tune_skill'"),
        ("best(odd) > 1", "curve"),
        ("tune_skill2 > 1", "did you mean 'tune_skill'"),
        ("lr << 1", "character 5"),
        ("lr <", "it ends here"),
        ("", "it ends here"),
        ("lr", "a comparison"),
        ("1 < 2", "one must be a name"),
        ("(lr < 1", "')' is wanted"),
        ("lr < 1)", "')' does not fit here"),
        ("lr < 1 or", "it ends here"),
        ("lr = null", "is null"),
        ("lr is 3", "'null'"),
        ("lr in 3", "list of values"),
        ("lr in (3", "')' is wanted"),
        ("3 in (3)", "a name is wanted"),
        ("lr not 3", "does not fit here"),
        ("model < toto", "= and !="),
        ("freeze < true", "= and !="),
        ("model = 3", "model is a text"),
        ("seed = 'x'", "seed is a number"),
        ("seed contains x", "only a text contains"),
        ("created_at = 2026-01-01", "< <= > >="),
        ("created_at > 2026-13-01", "write a moment"),
        ("created_at > '0001-01-01T00:00:00+23:00'", "write a moment"),
        ("lr < 1e999", "too large"),
        ("lr < 1e4x", "means nothing"),
        ("lr < 'a", "means nothing"),
        ("lr ; drop", "';' means nothing"),
        ("lr < 1\x00", "cannot be printed"),
        ("\ud800 < 1", "cannot be printed"),
        ("not " * 50 + "lr < 1", "levels deep"),
        ("(" * 3000, "levels deep"),
        ("lr < 1 and " * 250 + "lr < 1", "more than 200 tests"),
        ("lr < 1" + " " * 5000, "characters"),
    ],
)
def test_a_wrong_expression_is_pointed_at(filled: Tracker, where: str, says: str) -> None:
    with pytest.raises(UsageError, match=r".") as error:
        filled.get_runs(where=where)
    assert says in str(error.value)


def test_a_name_that_only_hp_can_mean_is_found_by_it(tracker: Tracker, finished: Finished) -> None:
    run = finished("toto", {}, hyperparams={"seed": 5, "val_pct_mae": 2, "and": 1, "test_size": 3})
    for where in ("hp(seed) = 5", "hp(val_pct_mae) = 2", "hp(and) = 1", "hp(test_size) = 3"):
        assert [r.run_id for r in tracker.get_runs(where=where)] == [run.run_id]
    assert tracker.get_runs(where="seed = 5") == []


def test_one_odd_run_does_not_keep_others_from_being_found(
    tracker: Tracker, finished: Finished
) -> None:
    finished("toto", {}, hyperparams={"text": "a\x00b", "lr": 10**30, "nested": {"lr": [1]}})
    run = finished("toto", {}, hyperparams={"text": "ab", "lr": 1})
    for where in ("hp(text) = 'ab'", "lr < 2", "nested is null"):
        assert [r.run_id for r in tracker.get_runs(where=where)] == [run.run_id]


def test_a_database_without_runs_knows_no_names_and_refuses_none(tracker: Tracker) -> None:
    assert tracker.get_runs(where="lr < 1 and best(val_skill) > 0 and anything = 'x'") == []


def test_a_word_in_quotes_is_never_a_keyword(tracker: Tracker, finished: Finished) -> None:
    run = finished("toto", {}, hyperparams={"said": "not 'and' or"})
    assert tracker.get_runs(where=r"said = 'not \'and\' or'") == [run]


def test_no_word_of_python_means_anything(tracker: Tracker, finished: Finished) -> None:
    run = finished("toto", {}, hyperparams={"lambda": 1, "if": 2, "import": 3, "None_": 4})
    assert tracker.get_runs(where="lambda = 1 and if = 2 and import in (3) and None_ = 4") == [run]
    for where in ("lr if seed else 1", "[lr]", "lr + 1 > 2", "lr @ 'x'", "f'{lr}'", "lr := 1"):
        with pytest.raises(UsageError):
            tracker.get_runs(where=where)


def test_a_state_that_is_none_is_refused_by_name(filled: Tracker) -> None:
    for where in ("state = done", "state == 'done'", "state != done", "state in (failed, done)"):
        with pytest.raises(UnknownName, match="unknown state 'done'"):
            filled.get_runs(where=where)
    assert found(filled, "not state in (failed, lost)") == "abc"


def test_a_number_is_never_taken_for_its_neighbour(tracker: Tracker, finished: Finished) -> None:
    run = finished("toto", {}, hyperparams={"many": 2**53}, seed=2**62 + 1)
    finished("toto", {}, hyperparams={"many": 1}, seed=2**62)
    assert tracker.get_runs(where=f"seed = {2**62 + 1}") == [run]
    assert tracker.get_runs(where=f"seed > {2**62}") == [run]
    assert tracker.get_runs(where=f"many > {2**53 - 1}") == [run]
    assert tracker.get_runs(where=f"seed < {2**63 + 1} and seed in ({2**62 + 1})") == [run]
    for where in (f"seed = {2**63 + 1}", f"seed != {2**63}", f"many = {2**53 + 1}",
                  f"many in (1, {-(2**63) - 1})"):  # fmt: skip
        with pytest.raises(UsageError, match="neighbours; use < and >"):
            tracker.get_runs(where=where)


PIECES = st.sampled_from(
    [
        *"()<>=,'\"\\;%_.-+ \x00\ud800é",
        *("and ", "or ", "not ", "in ", "is ", "null ", "contains ", "true", "lr", " loss", "tag"),
        *("val_skill", "best(", "hp(", "test_mae", "1e-4", "1e999", "--", "/*", "' OR 1=1 --"),
        *("); DROP TABLE runs; --", "created_at", "2026-01-01", "$."),
    ]
)
ANYTHING = st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=14).map("".join))


@given(ANYTHING)
def test_no_input_ends_in_anything_but_runs_or_a_usage_error(filled: Tracker, text: str) -> None:
    for asked in ({"where": text}, {"sort": text}, {"where": f"lr < 1 or {text}"}):
        with contextlib.suppress(UsageError):
            assert len(filled.get_runs(**asked)) <= 4  # type: ignore[arg-type]
    assert len(filled.get_runs()) == 4  # nothing was dropped or changed


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_quoted_text_means_itself_alone(shared: Tracker, name: str, value: str) -> None:
    """A value that is typed in quotes finds the run that has it, whatever it holds."""

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    name, value = (("x" + "".join(filter(str.isprintable, t))) for t in (name, value))
    run = shared.start_run(model="toto", hyperparams={name: value, "other": f"{value}!"})
    where = f"hp({quoted(name)}) = {quoted(value)} and run_id = {quoted(run.run_id)}"
    assert [r.run_id for r in shared.get_runs(where=where)] == [run.run_id]
    assert shared.get_runs(where=where.replace(" = ", " != ", 1)) == []


def ids(runs: list[Run]) -> list[str]:
    return [str(run.notes)[4] for run in runs]


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("val_pct_mae", "acbd"),
        ("val_pct_mae:desc", "bcad"),
        ("lr:asc", "abcd"),  # numbers, then texts, then nothing
        ("best(tune_pct_mae):DESC", "dcba"),
        ("model", "dcba"),
        ("created_at:desc", "dcba"),
    ],
)
def test_runs_sort_by_any_value_and_those_without_it_come_last(
    filled: Tracker, sort: str, names: str
) -> None:
    assert "".join(ids(filled.get_runs(sort=sort))) == names
    assert ids(filled.get_runs(sort=sort, limit=2)) == list(names[:2])


@pytest.mark.parametrize("sort", ["test_pct_mae", "tag", "lr:up", "", "lr < 1", "3"])
def test_what_cannot_be_sorted_by_is_refused(filled: Tracker, sort: str) -> None:
    with pytest.raises(UsageError):
        filled.get_runs(sort=sort or " ")


def test_an_unknown_key_to_sort_by_names_the_nearest(filled: Tracker) -> None:
    with pytest.raises(UnknownName, match="did you mean 'val_pct_mae'"):
        filled.get_runs(sort="val_pct_mea:desc")


def test_runs_are_filtered_by_tag_hyperparameter_commit_and_date(filled: Tracker) -> None:
    run = filled.get_runs(where="tag = a")[0]

    def names(**asked: Any) -> str:
        return "".join(sorted(ids(filled.get_runs(**asked))))

    assert names(tags=["good"]) == "ab"
    assert names(tags=["good", "b"]) == "b"
    assert names(hyperparams={"lr": (None, 1e-4)}) == "a"
    assert names(hyperparams={"lr": (1e-5, 1e-3)}) == "ab"
    assert names(hyperparams={"loss": "huber", "freeze": True}) == "a"
    assert names(hyperparams={"lr": None}) == "d"
    assert names(created_after=run.created_at) == "abcd"
    assert names(created_before=run.created_at) == ""
    assert names(git_commit="abc123") == "a"
    assert names(git_commit="%") == ""
    with pytest.raises(UsageError, match="a range"):
        filled.get_runs(hyperparams={"lr": (1, 2, 3)})
