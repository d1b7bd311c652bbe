"""The model of a checkpoint behind LitServe, for benchmarks/serving.py: prints its port, serves."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import litserve  # type: ignore[import-not-found]

from foresweep.evaluation.predict import Forecaster
from foresweep.models.base import DEFAULT_LEVELS
from foresweep.serving.asked import Asked, Reader, context_of


class Api(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        import torch

        torch.set_num_threads(1)
        self.forecaster = Forecaster.load(Path(sys.argv[1]))
        self.reader = Reader(512, 64, 32)

    def decode_request(self, request):  # type: ignore[no-untyped-def] # a type would be asked for
        return self.reader.check(Asked.model_validate(request), 5).items[0]

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def unbatch(self, output: Any) -> list[Any]:
        return list(output)

    def predict(self, items: list[Any]) -> Any:
        context = context_of(items, self.forecaster.predictor.context_length)
        made = self.forecaster.predictor.predict(context, horizon=5, levels=DEFAULT_LEVELS, seed=0)
        told = self.forecaster.told(context, made, {})
        return [
            (item, told.last_close[n], told.times[n], made.values[n])
            for n, item in enumerate(told.items)
        ]

    def encode_response(self, output: Any) -> dict[str, Any]:
        item, close, times, values = output
        quantiles = {f"{level:g}": values[:, q].tolist() for q, level in enumerate(DEFAULT_LEVELS)}
        return {
            "item_id": item,
            "last_close": float(close),
            "timestamp": [str(time) for time in times],
            "quantiles": quantiles,
        }


if __name__ == "__main__":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api = Api(max_batch_size=64, batch_timeout=0.004, api_path="/forecast")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    print(port, flush=True)
    server.run(port=port, host="127.0.0.1", generate_client_file=False, log_level="warning")
