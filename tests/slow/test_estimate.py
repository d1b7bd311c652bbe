"""What a config costs: real steps of real networks, counted against the networks themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foresweep.errors import UsageError
from foresweep.models.base import Resources
from foresweep.search.engines.base import PipeChannel
from foresweep.search.plan import SweepPlan, by_hand
from foresweep.search.running.costs import Estimate, Measure, estimate
from shells import Shell
from tiny_weights import write_weights

pytestmark = pytest.mark.slow


def measure(folder: Path, model: str, values: dict[str, Any], **plan: Any) -> Estimate:
    """An estimate made in this process."""
    asked = by_hand(SweepPlan((model,), resources=Resources(), **plan), values)
    return Measure(asked.checked(), folder)(PipeChannel(None))  # type: ignore[arg-type]


def parameters_of(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def test_toto_s_estimate_counts_toto_s_parameters(tmp_path: Path) -> None:
    from foresweep.models.toto import network as nets

    found = measure(tmp_path, "toto", {"context_length": 64, "batch_size": 2, "num_samples": 8})
    shape = {k: found.config[k] for k in nets.ARCHITECTURE}
    network = nets.build(nets.network_options(shape, 0.0))
    assert found.parameters == parameters_of(network)
    assert [s.trained_parameters for s in found.stages] == [found.parameters]
    assert found.config["max_steps"] == 300, "the config's own steps, not those taken"


def test_kronos_estimate_has_a_stage_for_each_of_its_nets(tmp_path: Path) -> None:
    from foresweep.models.kronos.config import architecture_of, build
    from kronos_tiny import SHAPE, config

    values = {**SHAPE, "context_length": 32, "batch_size": 2, "num_samples": 2}
    found = measure(tmp_path, "kronos", values)
    nets = build(architecture_of(config(**SHAPE)))
    counts = [parameters_of(nets.tokenizer), parameters_of(nets.predictor)]
    assert [s.trained_parameters for s in found.stages] == counts
    assert found.parameters == sum(counts)
    assert all(s.seconds_per_step and s.seconds_per_step > 0 for s in found.stages)


def test_adapters_are_counted_apart_from_what_they_hang_in(tmp_path: Path) -> None:
    weights = str(write_weights("chronos2", tmp_path / "weights"))
    values = {"context_length": 32, "batch_size": 2, "finetune": "lora"}
    tuned = measure(tmp_path, "chronos2", values, pretrained=weights, size=None)
    (stage,) = tuned.stages
    assert 0 < stage.trained_parameters < tuned.parameters
    asis = {"context_length": 32, "finetune": "none"}
    untrained = measure(tmp_path, "chronos2", asis, pretrained=weights, size=None)
    assert untrained.stages == ()
    assert untrained.parameters == tuned.parameters - stage.trained_parameters
    assert untrained.seconds_per_forecast > 0


def test_the_command_measures_in_a_process_of_its_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shell = Shell(capsys)
    small = ["--set", "context_length=32", "--set", "batch_size=2"]
    found = json.loads(shell("spaces", "show", "chronos2", "--estimate", *small, "--json"))
    assert found["config"]["context_length"] == 32
    assert found["parameters"] == found["stages"][0]["trained_parameters"] > 10_000
    assert found["peak_memory_mb"] > found["memory_before_mb"] > 0
    assert "context_length=2000 is more" in shell.error(
        "spaces", "show", "chronos2", "--estimate", "--set", "context_length=2000", code=2
    )
    assert "add --estimate" in shell.error("spaces", "show", "toto", "--size", "tiny", code=2)
    assert not list(tmp_path.iterdir())


def test_a_baseline_has_nothing_to_estimate() -> None:
    with pytest.raises(UsageError, match="drift has no network"):
        estimate(SweepPlan(("drift",)), {})
