"""The encoder that leaves out what cannot matter, against the authors' own."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from chronos.chronos2 import Chronos2Model as TheirModel
from chronos.chronos2.model import Chronos2Encoder
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foresweep.models.base import Resources
from foresweep.models.chronos2 import network as net
from foresweep.models.chronos2.network import Chronos2Model, group_size
from foresweep.models.training.loop import seeded

SHAPE = {"patch_size": 4, "d_model": 16, "d_ff": 32, "num_layers": 2, "num_heads": 2}


def pair(dropout: float = 0.0) -> tuple[Chronos2Model, TheirModel]:
    """Our network and the authors' with the same large weights: far from an even forecast."""
    core = net.core_config(**SHAPE, dropout=dropout, context_length=48, label_length=6)
    with seeded(0, Resources()):
        ours = net.build(core)
    for parameter in ours.parameters():
        parameter.data.mul_(5.0)
    theirs = TheirModel(ours.config)
    theirs.load_state_dict(ours.state_dict())
    return ours.eval(), theirs.eval()


def windows(num: int, channels: int, missing: str = "nothing") -> Tensor:
    """[N, V, 48] noise, some of it missing."""
    found = torch.randn(num, channels, 48, generator=torch.Generator().manual_seed(1))
    if missing == "the left of one channel":
        found[:, 0, :10] = torch.nan
    elif missing == "the left of every channel":
        found[..., :17] = torch.nan
    elif missing == "gaps and a whole row":
        found[1, 0, 20:33] = torch.nan
        found[0, -1] = torch.nan
    return found


MISSING = (
    "nothing",
    "the left of one channel",
    "the left of every channel",
    "gaps and a whole row",
)


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("channels", [1, 5])
def test_forecasts_are_the_authors_own(channels: int, missing: str) -> None:
    ours, theirs = pair()
    context = windows(4, channels, missing)
    with torch.no_grad():
        found, wanted = (net.quantiles(n, context, 6) for n in (ours, theirs))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert wanted.std() > 0.1


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("channels", [1, 5])
def test_losses_and_gradients_are_the_authors_own(channels: int, missing: str) -> None:
    labels = torch.randn(4, channels, 6, generator=torch.Generator().manual_seed(2))
    gradients = []
    for network in pair():
        loss = net.loss(network.train(), windows(4, channels, missing), labels)
        loss.backward()
        gradients.append({n: p.grad for n, p in network.named_parameters()} | {"loss": loss})
    ours, theirs = gradients
    for name, wanted in theirs.items():
        found = torch.zeros_like(wanted) if ours[name] is None else ours[name]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5, msg=name)
    unused = {n.split("self_attention.")[1] for n, g in ours.items() if g is None}
    assert unused == ({"q.weight", "k.weight"} if channels == 1 else set())


@pytest.mark.parametrize("ids", [[0, 0, 1, 1, 1, 2], [0, 1, 0, 1, 2, 2], [3, 3, 3, 3, 3, 3]])
def test_any_other_grouping_forecasts_as_the_authors_do(ids: list[int]) -> None:
    rows = windows(6, 1)[:, 0]
    with torch.no_grad():
        found, wanted = (
            n(context=rows, group_ids=torch.tensor(ids), num_output_patches=2).quantile_preds
            for n in pair()
        )
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_known_covariates_of_the_future_are_seen_as_by_the_authors() -> None:
    rows = windows(6, 1)[:, 0]
    future = torch.full((6, 8), torch.nan)
    future[1::2] = torch.randn(3, 8, generator=torch.Generator().manual_seed(3))
    asked = {"context": rows, "group_ids": torch.arange(6) // 2, "num_output_patches": 2}
    with torch.no_grad():
        ours, theirs = pair()
        found = ours(**asked, future_covariates=future).quantile_preds
        wanted = theirs(**asked, future_covariates=future).quantile_preds
        blind = ours(**asked).quantile_preds
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found[::2], blind[::2])


def test_equal_groups_never_take_the_authors_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def long_way(*_: Any, **__: Any) -> None:
        raise AssertionError("every row was scored against every other")

    ours, _ = pair()
    monkeypatch.setattr(Chronos2Encoder, "forward", long_way)
    net.quantiles(ours, windows(4, 3), 6)
    with pytest.raises(AssertionError, match="scored against every other"):
        ours(context=windows(3, 1)[:, 0], group_ids=torch.tensor([0, 1, 1]))


def test_only_the_patches_that_are_read_go_through_the_last_block() -> None:
    ours, _ = pair()
    seen: list[int] = []
    for block in ours.encoder.block:
        block.layer[2].register_forward_hook(lambda *given: seen.append(given[2].shape[1]))
    net.quantiles(ours, windows(2, 2), 6)
    assert seen == [12 + 1 + 2, 2], "12 of context, a separator, 2 of the forecast"


def test_embeddings_and_attention_weights_are_the_authors_own() -> None:
    ours, theirs = pair()
    rows, ids = windows(4, 1)[:, 0], torch.arange(4)
    with torch.no_grad():
        ours(rows, group_ids=ids)  # reads one patch; encoding reads all
        found, wanted = (n.encode(rows, group_ids=ids)[0][0] for n in (ours, theirs))
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        weights = ours(rows, group_ids=ids, output_attentions=True).enc_time_self_attn_weights
    assert [w.shape[-1] for w in weights] == [14, 14]


def test_a_row_alone_loses_the_same_share_of_heads_as_any_other() -> None:
    ours, _ = pair(dropout=0.4)
    group = ours.encoder.block[0].layer[1].self_attention
    seen: dict[str, Tensor] = {}
    group.v.register_forward_hook(lambda *given: seen.update(value=given[2]))
    group.o.register_forward_hook(lambda *given: seen.update(found=given[1][0]))
    with seeded(0, Resources()):
        net.quantiles(ours.train(), windows(60, 1), 6)
    value, found = (seen[k].unflatten(-1, (2, 8)) for k in ("value", "found"))
    lost = (found == 0).all(dim=-1)
    assert 0.37 < lost.float().mean() < 0.43
    torch.testing.assert_close(found[~lost], value[~lost] / 0.6)


def test_dropout_in_training_follows_the_authors_law() -> None:
    """The mean and the spread of 150 losses are those of the authors' network."""
    channels = 3
    context = windows(3, channels)
    labels = torch.randn(3, channels, 6, generator=torch.Generator().manual_seed(2))
    found = []
    for network in pair(dropout=0.4):
        network.train()
        with seeded(0, Resources()), torch.no_grad():
            found.append(torch.stack([net.loss(network, context, labels) for _ in range(150)]))
    ours, theirs = found
    error = (ours.var() / 150 + theirs.var() / 150).sqrt()
    assert abs(ours.mean() - theirs.mean()) < 3 * error
    assert 0.8 < ours.std() / theirs.std() < 1.25


@pytest.mark.parametrize("missing", MISSING)
def test_half_precision_forecasts_nearly_the_same(missing: str) -> None:
    """Within bfloat16's rounding of the authors' network in float32, and never NaN."""
    ours, theirs = pair()
    context = windows(4, 3, missing)
    with torch.no_grad():
        wanted = net.quantiles(theirs, context, 6)
        with torch.autocast("cpu", torch.bfloat16):
            found = net.quantiles(ours, context, 6).float()
    assert (found - wanted).abs().mean() < 0.05 * wanted.std()


def test_it_is_saved_as_the_authors_network(tmp_path: Path) -> None:
    from chronos import Chronos2Pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    ours, theirs = pair()
    assert set(ours.state_dict()) == set(theirs.state_dict())
    Chronos2Pipeline(ours).save_pretrained(tmp_path)
    again = Chronos2Pipeline.from_pretrained(tmp_path).model
    assert type(again) is TheirModel
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_a_group_size_is_told_where_groups_are_equal_and_contiguous(ids: list[int]) -> None:
    runs = [ids[0:1]]
    for previous, value in pairwise(ids):
        if value == previous:
            runs[-1].append(value)
        else:
            runs.append([value])
    regular = len({len(r) for r in runs}) == 1 and len({r[0] for r in runs}) == len(runs)
    assert group_size(torch.tensor(ids)) == (len(runs[0]) if regular else None)
