"""Sources of the policy: a local Hugging Face directory, or a tiny model made on the spot."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from driftline.config import Config
from trainer.errors import TrainerError
from trainer.learn import tiny_model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The body's dtype; "auto" is float32 on a CPU, which has no bfloat16 arithmetic worth the name, else bfloat16."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    """The configuration's word for a torch dtype."""
    return next(name for name, value in DTYPES.items() if value == dtype)


def seed(config: Config) -> int:
    """Of the tiny model and its warm start."""
    return config.model.seed if config.model.seed >= 0 else config.run.seed


def load(config: Config) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model (float32 master weights) and tokenizer of a run. Raises TrainerError."""
    if not config.model.path:
        model = tiny_model.make_model(config.model, seed=seed(config), max_length=config.engine.max_model_len)
        return model, tiny_model.make_tokenizer()
    return load_path(Path(config.model.path).expanduser())


def load_path(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model (float32 master weights) and tokenizer of a local Hugging Face directory. Raises TrainerError."""
    if not (path / "config.json").is_file():
        raise TrainerError(
            f"model.path: {path} is not a Hugging Face model directory (no config.json in it); "
            "allowed: a local directory, or empty for a tiny model"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, dtype=torch.float32)
    # Transformers answers a broken directory with whatever its parsers raise; each is the operator's to read.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TrainerError(f"model.path: {path} cannot be loaded: {reason}") from error
    if tokenizer.eos_token_id is None:
        raise TrainerError(f"model.path: the tokenizer of {path} has no end-of-sequence token, which the task needs")
    return model, tokenizer


def export(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path, dtype: torch.dtype) -> None:
    """Write a Hugging Face directory with the weights in `dtype`; the model itself keeps its float32 weights."""
    weights = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    model.save_pretrained(path, state_dict=weights)
    tokenizer.save_pretrained(path)
