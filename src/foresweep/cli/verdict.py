"""`verdict`: is the winner any good? And `power`: what could be proved beforehand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foresweep.cli.options import (
    Data,
    Db,
    Horizon,
    HowRead,
    Json,
    Runs,
    SweepId,
    open_existing,
    open_tracker,
    settings,
    sharing,
)
from foresweep.cli.sweep import Workforce
from foresweep.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from foresweep.evaluation.planning import Outlook, PowerPlan
    from foresweep.records import Sweep, Verdict
    from foresweep.tracker.tracker import Tracker


NAIVE_WINS, HOLD = 3, 4
"""Exit codes beside 0 for promote. Of several verdicts the highest counts."""


def verdict(
    run: Annotated[
        list[str] | None,
        typer.Argument(
            help="A run's id; several, of different horizons, are judged together. Default: the "
            "best on val of the latest sweep."
        ),
    ] = None,
    sweep: SweepId = None,
    losses: Annotated[
        Path | None,
        typer.Option(
            "--losses",
            help="Judge a CSV or Parquet file instead: trial, origin, item, part, loss, scale.",
            metavar="FILE",
        ),
    ] = None,
    returns: Annotated[
        Path | None,
        typer.Option(
            "--returns",
            help="Judge what a strategy search earned: a CSV or Parquet file of returns a bar, a "
            "column a trial, freqtrade's export, or a folder of these.",
            metavar="FILE",
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            help="Judge a bundle again (`export bundle`), from its losses and without a database.",
            metavar="FILE",
        ),
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            "--benchmark",
            help="With --losses: the trial to beat; of several the best on tune. With --returns: "
            "the trial that buys and holds, or cash.",
            metavar="TRIAL",
        ),
    ] = None,
    candidate: Annotated[
        str | None,
        typer.Option(
            help="With --losses, --returns: the trial to judge. Default: the best on val.",
            metavar="TRIAL",
        ),
    ] = None,
    horizon: Annotated[
        int | None, typer.Option(help="With --losses: bars forecast. Default: 1.", min=1)
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="With --losses: bars between origins. Default: 1.", min=1)
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            help="With --losses, --returns: trials in all, failed and pruned ones too.", min=1
        ),
    ] = None,
    earlier_judged: Annotated[
        int | None,
        typer.Option(
            help="With --losses, --returns: times that this val was judged before.", min=0
        ),
    ] = None,
    earlier_looks: Annotated[
        int | None,
        typer.Option(help="With --losses, --returns: looks at this test before.", min=0),
    ] = None,
    pretrain_cutoff: Annotated[
        str | None,
        typer.Option(
            help="With --losses, --returns: last day of the data of the candidate's weights, or "
            "none where they were trained from scratch.",
            metavar="DATE|none",
        ),
    ] = None,
    costs: Annotated[
        str | None,
        typer.Option(
            help="With --returns: are trading costs within them?", metavar="included|none"
        ),
    ] = None,
    test_from: Annotated[
        str | None,
        typer.Option(
            help="With --returns: first day that no choice has seen; bars from there on are test.",
            metavar="DATE",
        ),
    ] = None,
    growing: Annotated[
        bool,
        typer.Option(
            "--growing",
            help="Where this opens the test: to be read for ever, with the bars that will have "
            "come, at one level. Settled when it is first opened.",
        ),
    ] = False,
    as_json: Json = False,
    db: Db = None,
) -> None:
    """Promote, hold or naive wins: every trial counted, the sealed test opened last.

    Exit code 0: promote, 3: naive wins, 4: hold. Opening the test is recorded.
    """
    from foresweep.cli.tables import show_verdict
    from foresweep.records import Outcome

    only_files = {
        "--benchmark": benchmark, "--candidate": candidate, "--horizon": horizon,
        "--stride": stride, "--trials": trials, "--earlier-judged": earlier_judged,
        "--earlier-looks": earlier_looks, "--pretrain-cutoff": pretrain_cutoff,
    }  # fmt: skip
    only_returns: dict[str, object] = {"--costs": costs, "--test-from": test_from}
    record: Mapping[str, object] | None = None
    if bundle is not None:
        from foresweep.lifecycle.bundle import open_bundle

        beside = {"RUN": run, "--sweep": sweep, "--losses": losses, "--growing": growing or None}
        beside |= {"--returns": returns}
        _refuse(
            {**only_files, **only_returns, **beside},
            "and --bundle FILE are two questions; give one",
        )
        with open_bundle(bundle) as opened:
            told: tuple[Verdict, ...] = (opened.verdict(),)
    elif returns is not None:
        from foresweep.selection.verdict.returns import AskedReturns, verdict_on_returns

        two = {"RUN": run, "--sweep": sweep, "--losses": losses}
        _refuse(two, "and --returns FILE are two questions; give one")
        bars = {"--horizon": horizon, "--stride": stride}
        _refuse(bars, "is for --losses FILE; returns are judged bar by bar")
        if not benchmark or len(benchmark) > 1:
            raise UsageError(
                "--returns needs one --benchmark: the trial that buys and holds, or cash for never "
                "trading"
            )
        if costs not in (None, "included", "none"):
            raise UsageError(f"--costs {costs!r}: say included or none")
        told = (
            verdict_on_returns(
                returns,
                AskedReturns(
                    benchmarks=tuple(benchmark),
                    candidate=candidate,
                    num_trials=trials,
                    earlier_judged=earlier_judged or 0,
                    earlier_looks=earlier_looks or 0,
                    cutoff=_date(pretrain_cutoff, "--pretrain-cutoff"),
                    growing=growing,
                    costs=costs,
                    test_from=_date(test_from, "--test-from"),
                ),
            ),
        )
    elif losses is None:
        from foresweep.selection.verdict.runs import verdict_on_runs

        _refuse(only_files, "is for --losses FILE; a sweep knows it")
        _refuse(only_returns, "is for --returns FILE")
        with open_existing(db) as tracker:
            told = verdict_on_runs(tracker, run or [None], sweep_id=sweep, growing=growing)
            record = dataclasses.asdict(tracker.judgings.origin())
    else:
        from foresweep.selection.verdict.foreign import Asked, verdict_on_file

        _refuse({"RUN": run, "--sweep": sweep}, "and --losses FILE are two questions; give one")
        _refuse(only_returns, "is for --returns FILE")
        if not benchmark:
            raise UsageError(
                "--losses needs --benchmark TRIAL: which trial of the file is the one to beat?"
            )
        asked = Asked(
            benchmarks=tuple(benchmark),
            candidate=candidate,
            horizon=horizon or 1,
            stride=stride or 1,
            num_trials=trials,
            earlier_judged=earlier_judged or 0,
            earlier_looks=earlier_looks or 0,
            cutoff=_date(pretrain_cutoff, "--pretrain-cutoff"),
            growing=growing,
        )
        told = (verdict_on_file(losses, asked),)
    if as_json:
        plain = [v.as_json() | ({"record": record} if record else {}) for v in told]
        typer.echo(json.dumps(plain[0] if len(plain) == 1 else plain, indent=2, allow_nan=False))
    else:
        for one in told:
            show_verdict(one)
        if record:
            typer.echo(
                f"Hash of the record now, to be kept elsewhere (foresweep db verify --holds HASH): "
                f"{record['last_hash']}"
            )
    codes = {Outcome.PROMOTE: 0, Outcome.NAIVE_WINS: NAIVE_WINS, Outcome.HOLD: HOLD}
    raise typer.Exit(max(codes[v.outcome] for v in told))


def _refuse(given: Mapping[str, object], why: str) -> None:
    """Raises UsageError naming the first option that was given and has no effect here."""
    for name, value in given.items():
        if value not in (None, []):
            raise UsageError(f"{name} {why}")


def _date(text: str | None, option: str) -> str | None:
    from datetime import date

    none = option == "--pretrain-cutoff"
    if text is None or (none and text == "none"):
        return text
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        more = ", or none where the weights are trained from scratch" if none else ""
        raise UsageError(f"{option} {text!r}: write a date as 2024-05-31{more}") from error


# `declare`: what is asked, on record before anything is trained.


def declare(
    question: Annotated[str, typer.Argument(help="What the search is to find out, in words.")],
    model: Annotated[
        list[str],
        typer.Option(
            "--model", "-m", help="A model that will be tried, several (toto,kronos) or all."
        ),
    ],
    max_runs: Annotated[int, typer.Option(help="Trials at most, all sweeps together.", min=1)],
    objective: Annotated[
        str, typer.Option(help="Metric that it is about.", metavar="METRIC")
    ] = "pct_mae",
    horizon: Annotated[
        str, typer.Option("--horizon", help="Bars forecast.", metavar="H[,H]")
    ] = "5",
    smallest_skill: Annotated[
        float | None,
        typer.Option(help="Smallest skill of interest, as a share: 0.02 is 2 % better."),
    ] = None,
    as_json: Json = False,
    db: Db = None,
) -> None:
    """Put a question, its models and its budget on record before anything is trained.

    The verdict then says what was declared and what was done. Sweep for it with --declared ID.
    """
    from foresweep.cli.sweep import as_horizons
    from foresweep.metrics import METRICS, objectives_of
    from foresweep.models.registry import BASELINES
    from foresweep.search.propose.modes import expand_models

    if smallest_skill is not None and not 0 < smallest_skill < 1:
        raise UsageError(
            f"--smallest-skill {smallest_skill:g} must be a share between 0 and 1, e.g. 0.02"
        )
    for name in objectives_of(objective):
        if name not in METRICS:
            raise UnknownName("objective", name, METRICS)
    with open_tracker(db) as tracker:
        said = tracker.declarations.add(
            question,
            models=[name for name in expand_models(model) if name not in BASELINES],
            objective=objective,
            horizons=as_horizons(horizon),
            max_trials=max_runs,
            smallest_skill=smallest_skill,
        ).declaration_id
    if as_json:
        typer.echo(json.dumps({"declaration_id": said}))
    else:
        typer.echo(f"Declared: {said}. Sweep for it with: foresweep sweep --declared {said} ...")


# `surrogate`: what the whole machine finds where nothing is.


@sharing(Workforce)
def surrogate(
    workforce: Workforce,
    sweep: Annotated[str, typer.Argument(help="A sweep on record, or latest.")] = "latest",
    kind: Annotated[
        str,
        typer.Option(
            help="signs: of returns flipped at random, alike for all items; blocks: stretches of "
            "20 bars in another order.",
            metavar="signs|blocks",
        ),
    ] = "signs",
    draw: Annotated[int, typer.Option(help="Which draw of surrogate prices.", min=0)] = 0,
    as_json: Json = False,
    db: Db = None,
    runs: Runs = None,
) -> None:
    """Sweep and judge once more on prices without predictability and with the same volatility.

    What is found there is luck or a leak; it stands in the verdict on the sweep. Ends with 1 where
    something passed for skill that can only be a leak.
    """
    from foresweep.cli.sweep import Asked, run_all
    from foresweep.search.plan import ASKED, on_surrogate
    from foresweep.selection.verdict.runs import verdict_on_runs
    from foresweep.selection.verdict.surrogates import in_words, look_at_fits, surrogates_of

    def there(tracker: Tracker) -> Sweep | None:
        made = (s for s in tracker.list_sweeps() if s.plan.get(ASKED, {}).get("surrogate") == said)
        return next(made, None)

    with open_existing(db) as tracker:
        real = tracker.get_sweep(sweep)
        plan = on_surrogate(real, kind=kind, seed=draw).checked()
        said = plan.surrogate
        before = there(tracker)
    if before is None or before.state != "complete":
        workers = workforce.workers_meant(plan.resources.device, plan.budget)
        going_on = None if before is None else before.sweep_id
        if code := run_all((plan,), Asked(db=db, runs=runs), workers, going_on=going_on):
            raise typer.Exit(code)
    with open_existing(db) as tracker:
        made = there(tracker)
        assert made is not None
        (judged,) = verdict_on_runs(tracker, sweep_id=made.sweep_id)
        look_at_fits(tracker, judged.candidate, settings(db, runs).runs_dir)
        told = next(t for t in surrogates_of(tracker, real) if t["sweep_id"] == made.sweep_id)
    typer.echo(json.dumps(told, indent=2) if as_json else f"{in_words(told)}.")
    raise typer.Exit(1 if told["alarm"] else 0)


# `power`: what a panel could prove, before any training is paid for.


@sharing(HowRead)
def power(
    how: HowRead,
    data: Data = None,
    horizon: Horizon = 5,
    trials: Annotated[
        int, typer.Option("--trials", help="Trials that will compete for the verdict.", min=1)
    ] = 60,
    skill: Annotated[
        float | None,
        typer.Option(
            help="A skill to ask about, as a share: 0.02 is 2 % better than the benchmark."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Smallest skill in pct_mae that this panel can prove with N trials, and what more would buy.

    From the benchmark's own errors before test: no training, and no look at test's prices.
    """
    from foresweep.data.reading.sources import default_source, load_panel
    from foresweep.data.splits import Cut, make_split
    from foresweep.evaluation.planning import plan_power
    from foresweep.settings import load_settings

    if skill is not None and not 0 < skill < 1:
        raise UsageError(f"--skill {skill:g} must be a share between 0 and 1, e.g. 0.02 for 2 %")
    panel = load_panel(data or default_source(load_settings().data), **how.said).panel
    plan = plan_power(panel, make_split(panel, Cut(horizon)), trials=trials, skill=skill)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(plan), indent=2))
    else:
        _draw(plan)


def _draw(plan: PowerPlan) -> None:
    from foresweep.cli.tables import console, plain_table

    out = console()
    now = plan.outlooks[0]
    scores = ", ".join(f"{name} {score:.4g} %" for name, score in plan.benchmark_scores.items())
    out.print(
        f"Horizon {plan.horizon}, benchmark {plan.benchmark} (tune pct_mae: {scores}); "
        f"{plan.trials} trials, {now.items} items, {now.val_origins:.0f} effective origins in val, "
        f"{now.test_origins:.0f} in test."
    )
    out.print(_answer(plan, now), style="bold")
    head = ["items", "years", ">origins val / test", ">own errors", ">errors shared"]
    if plan.skill is not None:
        head += [f">chance of {100 * plan.skill:.3g} %", ">shared"]
    table = plain_table(*head)
    for o in plan.outlooks:
        row = [str(o.items), f"{o.years:.1f}", f"{o.val_origins:.0f} / {o.test_origins:.0f}"]
        row += [_skill(o, o.smallest_skill), _skill(o, o.smallest_skill_shared)]
        if plan.skill is not None:
            row += [_share(o.chance), _share(o.chance_shared)]
        table.add_row(*row)
    out.print(table)
    out.print(
        f"Smallest skill (1 - pct_mae / benchmark's) that is promoted with {plan.power:.0%} "
        f"chance: found among {plan.trials} trials on val at {plan.level:.0%}, then confirmed on "
        f"test. 'own errors': a model errs on each item by itself; 'errors shared': it errs on all "
        f"items together, as markets move. Real models lie between. From {plan.history_origins} "
        f"origins before test."
    )


def _answer(plan: PowerPlan, now: Outlook) -> str:
    from foresweep.evaluation.yardstick import ENOUGH_ORIGINS

    if not now.enough:
        return (
            f"Nothing can be proved here: a verdict needs {ENOUGH_ORIGINS} effective origins in "
            f"val and in test, these are {now.val_origins:.0f} and {now.test_origins:.0f}. Use "
            f"more years or a shorter horizon."
        )
    low, high = (_skill(now, s) for s in (now.smallest_skill, now.smallest_skill_shared))
    said = f"This panel can prove a skill of {low} (errors shared by all items: {high})."
    if plan.skill is not None and now.chance is not None and now.chance_shared is not None:
        said += (
            f" A skill of {100 * plan.skill:.3g} % would be promoted with a chance of "
            f"{_share(now.chance)} ({_share(now.chance_shared)})."
        )
    return said


def _skill(outlook: Outlook, skill: float | None) -> str:
    if not outlook.enough:
        return "none"
    return "none" if skill is None else f"{100 * skill:.2g} %"


def _share(chance: float | None) -> str:
    return "-" if chance is None else f"{chance:.0%}"
