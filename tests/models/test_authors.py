"""A checkpoint in its authors' files is read by their loader, and says the same there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from foresweep.data.splits import Cut, make_split
from foresweep.data.windows import TrainWindows
from foresweep.errors import UsageError
from foresweep.models.authors import NOTE, what_is_lost, write_authors
from foresweep.models.base import Checkpoint, Resources, TrainingJob, as_dict, make_config
from foresweep.models.checkpoint import add_json, read_checkpoint, read_weights, write_checkpoint
from foresweep.models.training.loop import seeded
from panels import make_panel
from tiny_weights import CHRONOS2, write_weights


def chronos2(folder: Path, **values: Any) -> Checkpoint:
    from foresweep.models.chronos2 import network as net

    core = net.core_config(**CHRONOS2, dropout=0.1, context_length=32, label_length=8)
    with seeded(1, Resources()):
        state = {k: v.numpy() for k, v in net.build(core).state_dict().items()}
    config = {"context_length": 32, "target": "overlapping", **values}
    card = {"network": core, "horizon": 5, "run_id": "r"}
    return write_checkpoint(folder, model="chronos2", config=config, weights=state, card=card)


def kronos(folder: Path, **values: Any) -> Checkpoint:
    from foresweep.models.kronos.config import architecture_of, build
    from kronos_tiny import config

    with seeded(1, Resources()):
        nets = build(architecture_of(config()))
    resolved = as_dict(config(**values))
    state = {k: v.numpy() for k, v in nets.state().items()}
    card = {"network": architecture_of(config()), "horizon": 4}
    return write_checkpoint(folder, model="kronos", config=resolved, weights=state, card=card)


def toto(folder: Path) -> Checkpoint:
    from foresweep.models.toto import network as nets
    from toto_tiny import network_of, resolved

    config = resolved(patch_size=16)
    state = {k: v.numpy() for k, v in network_of(config, seed=1).state_dict().items()}
    card = {"network": nets.network_options(config.architecture, 0.1), "horizon": 3}
    return write_checkpoint(folder, model="toto", config=as_dict(config), weights=state, card=card)


def authors_quantiles(folder: Path, series: np.ndarray) -> np.ndarray:
    """[N, 8, 21] by Chronos-2's own pipeline."""
    from chronos import Chronos2Pipeline

    pipeline = Chronos2Pipeline.from_pretrained(str(folder), device_map="cpu")
    levels = list(pipeline.quantiles)
    asked = torch.from_numpy(series)[:, None].float()
    found, _ = pipeline.predict_quantiles(asked, prediction_length=8, quantile_levels=levels)
    return np.stack([one[0].numpy() for one in found])


def our_quantiles(checkpoint: Checkpoint, series: np.ndarray) -> np.ndarray:
    from foresweep.models.chronos2 import network as net

    with seeded(0, Resources()):
        network = net.build(checkpoint.card["network"])
    net.fill(network, read_weights(checkpoint), where="here")
    network.eval()
    with torch.no_grad():
        found = net.quantiles(network, torch.from_numpy(series)[:, None].float(), 8)
    return found[:, 0].numpy()


def test_chronos2s_own_pipeline_reads_it_and_forecasts_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = chronos2(tmp_path / "ours")
    lost = write_authors(checkpoint, tmp_path / "theirs", bare=True)
    assert capsys.readouterr().err == ""  # no bar of a library's
    assert (
        len({f.stat().st_mode for f in (tmp_path / "theirs").iterdir()}) == 1
    )  # read by all alike
    assert "target='overlapping'" in lost[0]
    series = np.random.default_rng(0).normal(size=(3, 32)).cumsum(axis=1)
    theirs = np.sort(authors_quantiles(tmp_path / "theirs", series), axis=-1)
    assert theirs == pytest.approx(our_quantiles(checkpoint, series), rel=1e-4, abs=1e-4)
    said = json.loads((tmp_path / "theirs" / NOTE).read_text())
    assert said["run_id"] == "r"
    assert said["left_out"] == list(lost)


def test_kronos_own_classes_read_both_nets(tmp_path: Path) -> None:
    from kronos_finance._vendor.kronos_model.kronos import Kronos, KronosTokenizer

    checkpoint = kronos(tmp_path / "ours", target="price")
    assert write_authors(checkpoint, tmp_path / "theirs") == ()  # as their code makes them
    ours = read_weights(checkpoint)
    kinds = ((Kronos, "model", "predictor"), (KronosTokenizer, "tokenizer", "tokenizer"))
    for kind, sub, part in kinds:
        net = kind.from_pretrained(str(tmp_path / "theirs" / sub))
        for name, value in net.state_dict().items():
            assert np.array_equal(value.numpy(), ours[f"{part}.{name}"]), name


def test_totos_own_loader_reads_it(tmp_path: Path) -> None:
    from foresweep.models.toto.network import package

    checkpoint = toto(tmp_path / "ours")
    write_authors(checkpoint, tmp_path / "theirs", bare=True)
    loaded = package().Toto.load_from_checkpoint(str(tmp_path / "theirs"), strict=True)
    ours = read_weights(checkpoint)
    state = loaded.model.state_dict()
    assert set(state) == set(ours)
    for name, value in state.items():
        assert np.array_equal(value.numpy(), ours[name]), name


def test_what_would_be_lost_is_refused_by_name(tmp_path: Path) -> None:
    plain = kronos(tmp_path / "returns", target="return")
    with pytest.raises(UsageError, match=r"target='return'.*--bare"):
        write_authors(plain, tmp_path / "out")
    calibrated = add_json(kronos(tmp_path / "cal", target="price"), "calibration.json", {"a": 1})
    assert what_is_lost(calibrated) == ("its calibration, which was fitted on tune",)
    with pytest.raises(UsageError, match="calibration"):
        write_authors(calibrated, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    naive = write_checkpoint(tmp_path / "drift", model="drift", config={})
    with pytest.raises(UsageError, match="drift has no files of its authors"):
        write_authors(naive, tmp_path / "out", bare=True)
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        write_authors(plain, tmp_path / "out", bare=True)


@pytest.mark.slow
def test_adapters_are_merged_in_what_their_pipeline_reads(tmp_path: Path) -> None:
    from foresweep.models.base import Facts
    from foresweep.models.chronos2.model import Chronos2

    panel = make_panel(2, 300)
    split = make_split(panel, Cut())
    given = {"pretrained": str(write_weights("chronos2", tmp_path / "w")), "size": None}
    given |= {"finetune": "lora", "context_length": 32, "max_steps": 3, "lr": 1e-2}
    family = Chronos2()
    raw = make_config(family.Config, given, model="chronos2")
    config = family.resolve(raw, Facts(5, 64, 400, 3))
    windows = TrainWindows(panel, split, split.part("train"))
    job = TrainingJob(windows, config, horizon=5, out=tmp_path / "ours")
    checkpoint = read_checkpoint(family.train(job).path)
    write_authors(checkpoint, tmp_path / "theirs", bare=True)
    series = np.random.default_rng(0).normal(size=(3, 32)).cumsum(axis=1)
    theirs = np.sort(authors_quantiles(tmp_path / "theirs", series), axis=-1)
    assert theirs == pytest.approx(our_quantiles(checkpoint, series), rel=1e-4, abs=1e-4)
    untrained = np.sort(authors_quantiles(tmp_path / "w", series), axis=-1)
    assert not np.allclose(theirs, untrained, atol=1e-3)
