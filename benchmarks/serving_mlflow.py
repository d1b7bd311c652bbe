"""The model of a checkpoint behind `mlflow models serve`, for benchmarks/serving.py: prints its
port, serves. One process, as MLflow does by default: it forecasts one request at a time."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import mlflow.pyfunc  # type: ignore[import-not-found]

from foresweep.evaluation.predict import Forecaster
from foresweep.models.base import DEFAULT_LEVELS
from foresweep.serving.asked import Asked, Reader, Series, context_of

BARS = ("open", "high", "low", "close", "volume")


class Model(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def load_context(self, context: Any) -> None:
        import torch

        torch.set_num_threads(1)
        self.forecaster = Forecaster.load(Path(context.artifacts["checkpoint"]))
        self.reader = Reader(512, 64, 32)

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        columns: dict[str, Any] = {name: model_input[name].tolist() for name in BARS}
        times = model_input["timestamp"].tolist()
        series = Series(item_id=model_input["item_id"].iloc[0], timestamp=times, **columns)
        item = self.reader.check(Asked(items=[series]), 5).items[0]
        seen = context_of([item], self.forecaster.predictor.context_length)
        made = self.forecaster.predictor.predict(seen, horizon=5, levels=DEFAULT_LEVELS, seed=0)
        told = self.forecaster.told(seen, made, {})
        return {
            "item_id": item.item_id,
            "last_close": float(told.last_close[0]),
            "timestamp": [str(time) for time in told.times[0]],
            "quantiles": {
                f"{level:g}": made.values[0, :, q].tolist()
                for q, level in enumerate(DEFAULT_LEVELS)
            },
        }


if __name__ == "__main__":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp()) / "model"
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder.parent}/mlflow.db"
    mlflow.pyfunc.save_model(
        folder, python_model=Model(), artifacts={"checkpoint": sys.argv[1]}, pip_requirements=[]
    )
    print(port, flush=True)
    words = ["mlflow", "models", "serve", "-m", str(folder), "-p", str(port)]
    own = Path(sys.executable).parent  # it starts uvicorn by its name
    os.environ["PATH"] = f"{own}{os.pathsep}{os.environ['PATH']}"
    os.execv(own / "mlflow", [*words, "--env-manager", "local", "--host", "127.0.0.1"])
