"""Every family answers behind the server what it forecasts itself, alone or in company."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import TrainWindows
from foresweep.evaluation.predict import predict_panel
from foresweep.lifecycle.champion import promote
from foresweep.models.base import Checkpoint, Facts, TrainingJob, make_config
from foresweep.models.checkpoint import read_checkpoint, update_card, write_checkpoint
from foresweep.models.ensemble import Member, write_ensemble
from foresweep.models.registry import get_model
from foresweep.serving.app import serving_app
from foresweep.serving.asked import Reader
from foresweep.serving.batching import Batcher
from foresweep.serving.live import Live
from foresweep.tracker.service import Service
from foresweep.tracker.tracker import Tracker
from foresweep.web import Guard
from panels import make_panel
from served_runs import a_sweep, body_of, make_calendars

pytestmark = pytest.mark.slow
STEPS = {"context_length": 64, "batch_size": 4, "max_steps": 1}
TINY: dict[str, dict[str, Any]] = {
    "chronos2": {"patch_size": 8, "d_model": 32, "d_ff": 64, "num_layers": 1, "num_heads": 2},
    "toto": {"patch_size": 8, "embed_dim": 32, "num_layers": 2, "num_heads": 2, "num_samples": 16},
    "kronos": {"d_model": 32, "ff_dim": 64, "token_bits": 5, "num_samples": 8},
}
HORIZON = 5


def trained(model: str, out: Path) -> Checkpoint:
    panel, family = make_panel(2, 300), get_model(model)
    split = make_split(panel, Cut(HORIZON, max_context=64))
    config = make_config(family.Config, STEPS | TINY[model], model=model)
    config = family.resolve(config, Facts(HORIZON, 64, panel.num_rows, 1))
    windows = TrainWindows(panel, split, split.part("train"))
    made = family.train(TrainingJob(windows, config, horizon=HORIZON, out=out))
    return update_card(made, {"horizon": HORIZON})


def checkpoint_of(model: str, folder: Path) -> Path:
    if model in TINY:
        return trained(model, folder / model / "checkpoint").path
    one = write_checkpoint(
        folder / "drift" / "checkpoint", model="drift", config={"context_length": 64},
        card={"horizon": HORIZON},
    )  # fmt: skip
    if model == "drift":
        return one.path
    members = [Member(one, 0.5, "drift"), Member(trained("toto", folder / "t" / "c"), 0.5, "toto")]
    made = write_ensemble(folder / "e" / "checkpoint", members, "mean", {})
    return update_card(made, {"horizon": HORIZON}).path


@pytest.fixture(scope="module", params=[*TINY, "ensemble", "drift"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Live, Path]]:
    make_calendars()
    folder = tmp_path_factory.mktemp(request.param)
    path = checkpoint_of(request.param, folder)
    with Tracker(folder / "sweeps.db") as tracker:
        sweep = a_sweep(tracker)
        run = tracker.start_run(
            model=request.param, hyperparams={}, sweep_id=sweep.sweep_id, is_baseline=False,
            fingerprints=sweep.fingerprints,
        )  # fmt: skip
        tracker.finish_run(run.run_id, "complete", checkpoint_path=path)
        promote(tracker, run.run_id, force_reason="a test")
        yield Live.open(tracker, None), path


def test_the_answer_is_the_familys_own_forecast_and_on_record(served: tuple[Live, Path]) -> None:
    live, path = served
    wanted = predict_panel(path, make_panel(3, 100))
    with TestClient(serving_app(live, Guard(is_api=True)), base_url="http://127.0.0.1") as client:
        told = client.post("/forecast", json=body_of()).json()
        assert client.get("/champion").json()["model"] == read_checkpoint(path).model
        far = client.post("/forecast", json=body_of(horizon=60))
    for n, one in enumerate(told["forecasts"]):
        ours = np.array([*one["quantiles"].values()]).T
        np.testing.assert_array_equal(ours, wanted.forecast.values[n])
        assert (np.diff(ours, axis=-1) >= 0).all()
    # beyond what it was trained for it says so, and never an error inside
    assert far.status_code in (200, 422), far.text
    service = Service(live.tracker.store)
    rows = [r for r in service.forecasts() if r["horizon"] == HORIZON]
    assert [r["quantiles"] for r in rows] == wanted.forecast.values.tolist()
    assert service.verify() == []


def test_no_forecast_depends_on_its_company(served: tuple[Live, Path]) -> None:
    """Requests of several lengths and items, in one batch and each alone."""
    live, _ = served
    reader, sizes = Reader(8, 10, 32), []
    bodies = [body_of(1 + k % 2, 40 + 13 * k, k) for k in range(7)]
    questions = [reader.read(json.dumps(body).encode(), HORIZON) for body in bodies]

    def asked(*, together: bool) -> list[Any]:
        batcher = Batcher(live, record=False, together=together)
        batcher.on_batch = lambda num, *_: sizes.append(num)
        futures = [batcher.put(question) for question in questions]
        batcher.start()
        told = [future.result(timeout=60).told for future in futures]
        batcher.stop()
        return told

    alone, company = asked(together=False), asked(together=True)
    assert sizes == [1] * 7 + [7]
    for one, other in zip(alone, company, strict=True):
        np.testing.assert_allclose(one.forecast.values, other.forecast.values, rtol=1e-5)
        assert one.input_hashes == other.input_hashes
