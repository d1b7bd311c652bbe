"""The examples of docs/verdict-elsewhere.md, run with the real libraries' own stores."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from planted_losses import losses
from shells import Shell

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*noload:DeprecationWarning"),  # MLflow's own SQL
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
PAGE = Path(__file__).parents[2] / "docs" / "verdict-elsewhere.md"
SKILLS = {"poor": -0.05, "poorer": -0.1, "good": 0.12}
ORIGINS, ITEMS = 45, 6


def code(title: str) -> str:
    """The block of the page that begins with this comment."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (found,) = (b for b in blocks if b.startswith(f"# {title}\n"))
    return str(found)


def run(title: str, **names: Any) -> None:
    exec(compile(code(title), str(PAGE), "exec"), names)


def tables() -> dict[str, pd.DataFrame]:
    """Losses of each trial and of last-value: origin, item, part, loss."""
    found: dict[str, list[pd.DataFrame]] = {}
    for n, part in enumerate(("val", "test")):
        made = losses({"naive": 0.0} | SKILLS, origins=ORIGINS, items=ITEMS, seed=20 + n)
        first = np.datetime64("2021-01-04", "D") + 400 * n
        for name, raw in zip(made.names, made.raw, strict=True):
            columns = {
                "origin": np.repeat((first + 7 * np.arange(ORIGINS)).astype(str), ITEMS),
                "item": np.tile([f"X{i}" for i in range(ITEMS)], ORIGINS),
                "part": part,
                "loss": np.abs(raw).ravel(),
            }
            found.setdefault(name, []).append(pd.DataFrame(columns))
    return {name: pd.concat(pieces) for name, pieces in found.items()}


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """In a folder whose packages talk to nobody."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_SILENT", "true")
    return Shell(capsys)


def judge_export(shell: Shell, title: str, export: Callable[[], None]) -> dict[str, Any]:
    """The verdict on what an example exported, with the `--trials` that it printed."""
    shell.capsys.readouterr()
    export()
    printed = shell.capsys.readouterr().out.strip().splitlines()[-1]
    assert printed.startswith("--trials "), title
    out = shell(
        "verdict", "--losses", "losses.csv", "--benchmark", "last-value", "--horizon", "5",
        "--stride", "5", "--pretrain-cutoff", "none", "--json", *printed.split(),
    )  # fmt: skip
    found: dict[str, Any] = json.loads(out)
    return found


def test_an_export_from_optuna_is_judged(shell: Shell) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = tables()
    study = optuna.create_study(study_name="chronos2", storage="sqlite:///optuna.db")

    def objective(trial: Any) -> float:
        trial.suggest_float("lr", 0, 1)
        if trial.number == len(SKILLS):
            raise optuna.TrialPruned
        table = made[list(SKILLS)[trial.number]]
        run("optuna: in the objective", trial=trial, losses=table)
        return float(table.loss.mean())

    study.optimize(objective, n_trials=len(SKILLS) + 1)
    found = judge_export(shell, "optuna", lambda: run("optuna: export", naive=made["naive"]))
    assert (found["outcome"], found["candidate"]) == ("promote", "trial-2")
    assert (found["num_tested"], found["num_trials"]) == (3, 4)


def test_an_export_from_mlflow_is_judged(shell: Shell) -> None:
    import mlflow

    made = tables()
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment("chronos2")
    ids = {}
    for name in SKILLS:
        with mlflow.start_run() as started:
            ids[name] = started.info.run_id
            run("mlflow: in each run", mlflow=mlflow, losses=made[name])
    with pytest.raises(ZeroDivisionError), mlflow.start_run():
        1 / 0
    mlflow.set_experiment("Default")  # the export is a script of its own
    found = judge_export(shell, "mlflow", lambda: run("mlflow: export", naive=made["naive"]))
    assert (found["outcome"], found["candidate"]) == ("promote", ids["good"])
    assert (found["num_tested"], found["num_trials"]) == (3, 4)


def test_an_export_from_wandb_is_judged(shell: Shell) -> None:
    import wandb

    made, ids = tables(), {}
    for name in SKILLS:
        here = str(Path.cwd())  # wandb remembers the folder of its first run in a process
        with wandb.init(project="chronos2", mode="offline", dir=here) as started:
            ids[name] = started.id
            run("wandb: in each run", run=started, wandb=wandb, losses=made[name])
    found = judge_export(shell, "wandb", lambda: run("wandb: export", naive=made["naive"]))
    assert found["outcome"] == "promote"
    assert found["candidate"].endswith(ids["good"])
    assert (found["num_tested"], found["num_trials"]) == (3, 3)
