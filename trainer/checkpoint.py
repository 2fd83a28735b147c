"""Checkpoints: weights and optimiser state as safetensors, the rest as JSON; no pickle, complete or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from driftline import bounded_file
from trainer.errors import TrainerError

STATE_FILE = "state.json"
_STATE_BYTES = 1 << 20
TENSOR_FILE = "tensors.safetensors"


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint without its tensors. `next_prompt` is the index of the next prompt of the task for the engines."""

    step: int
    version: int
    next_prompt: int
    config_digest: str
    schema: int = 1


def save(root: Path, state: State, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, keep: int) -> Path:
    """Write `root/step-<n>` and remove all but the `keep` newest. Returns the new directory."""
    final = root / f"step-{state.step:08d}"
    temporary = root / f".{final.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        tensors = {**_model_tensors(model), **_optimizer_tensors(model, optimizer), "rng": torch.get_rng_state()}
        save_file(tensors, temporary / TENSOR_FILE)
        (temporary / STATE_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(state)))
        for path in (*temporary.iterdir(), temporary):
            _fsync(path)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        _fsync(root)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in complete(root)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def complete(root: Path) -> list[Path]:
    """Checkpoints under `root`, newest first; unfinished ones are not among them."""
    if not root.is_dir():
        return []
    return sorted((p for p in root.glob("step-*") if (p / STATE_FILE).is_file()), reverse=True)


def restore(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Load weights, optimiser state and torch's random state; returns the rest. Raises TrainerError."""
    try:
        state = msgspec.json.decode(bounded_file.read(path / STATE_FILE, _STATE_BYTES), type=State)
        tensors = load_file(path / TENSOR_FILE)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, SafetensorError) as error:
        raise TrainerError(f"{path}: not a checkpoint of this program: {error}") from error
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        saved = tensors.get(f"model.{name}")
        if saved is None or saved.shape != parameter.shape:
            raise TrainerError(f"{path}: the checkpoint is of another model: '{name}' is missing or has another shape")
    moments: dict[str, dict[str, Tensor]] = {}
    for label, tensor in tensors.items():
        if label.startswith("optimizer."):
            _, key, name = label.split(".", 2)
            moments.setdefault(name, {})[key] = tensor
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"model.{name}"])
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device)  # AdamW counts on the CPU
                for key, value in moments.get(name, {}).items()
            }
    torch.set_rng_state(tensors["rng"])
    return state


def _model_tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    return {f"model.{name}": p.detach().cpu().contiguous() for name, p in model.named_parameters()}


def _optimizer_tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"optimizer.{key}.{name}": value.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
