"""Training states: what an interrupted training needs to go on exactly where it stood.

One safetensors file a stage, beside the checkpoint folder to be (`<out>.state/`), replaced in one
rename; the numbers stand as JSON in its header. It outlives the death of the process, not a power
cut: a lost state costs time, never truth.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foresweep.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def state_file(out: Path, first_step: int) -> Path:
    """Where the stage that begins at `first_step` keeps its state."""
    return out.with_name(out.name + ".state") / f"{first_step}.safetensors"


def clear_states(out: Path) -> None:
    """Remove the states of a training whose checkpoint is written."""
    shutil.rmtree(state_file(out, 0).parent, ignore_errors=True)


def adopt_states(earlier: Iterable[Path], out: Path) -> Path | None:
    """Take over what the newest of some attempts (their `out`, newest first) left to go on from.

    The states of all its stages stand beside `out` afterwards, whole or not at all, so that the
    attempt after this one needs no other. Gives back the attempt they are of; None: none left any.
    Raises CheckpointError where they cannot be copied.
    """
    target = state_file(out, 0).parent
    for attempt in earlier:
        source = state_file(attempt, 0).parent
        if attempt == out or not any(source.glob("*.safetensors")):
            continue
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, temporary)
            os.replace(temporary, target)
        except OSError as error:
            raise CheckpointError(
                f"cannot copy training state {source} to {target}: {error.strerror}"
            ) from error
        return attempt
    return None


def pack(
    state: Mapping[str, Tensor],
    best: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    device: str,
) -> dict[str, Tensor]:
    """Weights, best and averaged weights, optimiser moments and torch's random state, by name."""
    import torch

    out = {f"model/{k}": v for k, v in state.items()}
    out |= {f"best/{k}": v for k, v in best.items()}
    out |= {f"average/{k}": v for k, v in average.items()}
    for index, slots in optimizer.state_dict()["state"].items():
        out |= {f"optimizer/{index}/{k}": v for k, v in slots.items()}
    out["rng/cpu"] = torch.get_rng_state()
    if device.startswith("cuda"):
        out["rng/cuda"] = torch.cuda.get_rng_state(device)
    return {k: v.detach().cpu().clone() for k, v in out.items()}


def unpack(
    tensors: Mapping[str, Tensor],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    device: str,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Put a packed state back in place; best and averaged weights are returned."""
    import torch

    try:
        module.load_state_dict(_under(tensors, "model/"))
    except RuntimeError as error:
        raise CheckpointError(
            f"the training state to resume from is another architecture's: {error}"
        ) from error
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in _under(tensors, "optimizer/").items():
        index, _, key = name.partition("/")
        slots.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    torch.set_rng_state(tensors["rng/cpu"])
    if device.startswith("cuda") and "rng/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng/cuda"], device)
    best, average = _under(tensors, "best/"), _under(tensors, "average/")
    return {k: v.to(device) for k, v in best.items()}, average


def write_state(file: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Replace the state file. Raises CheckpointError where it cannot be written."""
    from safetensors.torch import save_file

    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(tensors), temporary, metadata={"numbers": json.dumps(numbers)})
        os.replace(temporary, file)
    except OSError as error:
        raise CheckpointError(f"cannot write training state {file}: {error.strerror}") from error


def read_state(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and numbers, None where there is no such file. Raises CheckpointError."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as stored:
            tensors = {k: stored.get_tensor(k) for k in stored.keys()}  # noqa: SIM118
            return tensors, json.loads(stored.metadata()["numbers"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{file} is not a training state: {error}") from error


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
