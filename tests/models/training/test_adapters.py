"""LoRA, freezing by layer group and recomputed blocks, on a network of four blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from foresweep.errors import ModelError
from foresweep.models.base import Resources
from foresweep.models.training.config import TrainingConfig
from foresweep.models.training.loop import seeded
from foresweep.models.training.optimisation import FROZEN, Layers, halves, recompute, tune

LOWER, UPPER = halves("blocks", 3)
LAYERS = Layers(
    adapted=("proj", "head"),
    groups={
        "embedding": ("token",),
        "lower_half": LOWER,
        "upper_half": (*UPPER, "norm"),
        "head": ("head",),
    },
)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj, self.drop = nn.Linear(6, 6), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop(torch.tanh(self.proj(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Linear(2, 6)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.token(x)
        for block in self.blocks:
            x = block(x)
        found: torch.Tensor = self.head(self.norm(x))
        return found


def net() -> Net:
    with seeded(0, Resources()):
        return Net()


def config(**values: Any) -> TrainingConfig:
    return TrainingConfig(pretrained="published", size=None, **values)


def trained(network: nn.Module) -> set[str]:
    return {
        n.split(".weight")[0].split(".bias")[0]
        for n, p in network.named_parameters()
        if p.requires_grad
    }


def gradients(network: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    with seeded(3, Resources()):
        network.zero_grad()
        network(x).square().mean().backward()
    return [p.grad for p in network.parameters() if p.grad is not None]


EVERY = {"token", "blocks.0.proj", "blocks.1.proj", "blocks.2.proj", "norm", "head"}


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("none", set()),
        ("embedding", {"token"}),
        ("lower_half", {"token", "blocks.0.proj"}),
        ("backbone", {"blocks.0.proj", "blocks.1.proj", "blocks.2.proj", "norm"}),
    ],
)
def test_freezing_keeps_the_layers_it_names(value: Any, kept: set[str]) -> None:
    network = net()
    tune(network, config(freeze=value), LAYERS)
    assert trained(network) == EVERY - kept
    assert value in FROZEN


def test_a_parameter_in_no_group_is_named() -> None:
    groups = {k: v for k, v in LAYERS.groups.items() if k != "upper_half"}
    with pytest.raises(ModelError, match=r"blocks\.1\.proj\.weight is in none of the groups"):
        tune(net(), config(), Layers((), groups))


def test_a_group_without_parameters_cannot_be_frozen() -> None:
    everything = ("token", "blocks", "norm", "head")
    with pytest.raises(ModelError, match="finds nothing to freeze in Net"):
        tune(net(), config(freeze="embedding"), Layers((), {"head": everything}))


def test_adapters_alone_are_trained_and_begin_as_nothing() -> None:
    network, x = net().eval(), torch.randn(5, 2)
    before = network(x)
    adapted = tune(network, config(finetune="lora", lora_r=2, lora_alpha=4), LAYERS)
    names = [n for n, p in network.named_parameters() if p.requires_grad]
    assert len(names) == 2 * 4  # two matrices on three projections and the head
    assert all("lora_" in n for n in names)
    torch.testing.assert_close(adapted.network(x), before)


def test_merged_adapters_leave_the_plain_network_with_the_same_output() -> None:
    network, x = net(), torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    names = set(network.state_dict())
    adapted = tune(network, config(finetune="lora", lora_r=2, lora_alpha=4), LAYERS)
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.5)
    for _ in range(3):
        gradients(network, x)
        optimizer.step()
    network.eval()
    moved = network(x)
    merged = adapted.merged().eval()
    assert set(merged.state_dict()) == names
    torch.testing.assert_close(merged(x), moved, rtol=1e-5, atol=1e-5)
    fresh = net().eval()
    assert not torch.allclose(merged(x), fresh(x))
    assert torch.equal(merged.token.weight, fresh.token.weight)
    assert adapted.merged() is merged


def test_a_target_of_lora_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match="no layer of Net is called q_proj"):
        tune(net(), config(finetune="lora"), Layers(("proj", "q_proj"), LAYERS.groups))


def test_recomputed_blocks_give_the_same_gradients_dropout_included() -> None:
    x = torch.randn(7, 2)
    plain, lean = net(), net()
    recompute(lean.blocks)
    calls = []
    lean.blocks[0].proj.register_forward_hook(lambda *call: calls.append(1))
    for one, two in zip(gradients(plain, x), gradients(lean, x), strict=True):
        assert torch.equal(one, two)
    assert len(calls) == 2, "the block was not computed again in the backward pass"
