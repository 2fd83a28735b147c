"""Token files as their frameworks write them, for tests: by the rules of prime-rl's exporter and NeMo-RL's logger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROMPT = 3
"""Tokens of the prompt before a response, without a logprob on either side."""


def prime_rl(root: Path, step: int, pairs: Sequence[Sequence[tuple[float, float]]], *, stable: bool = True) -> Path:
    """`token_exports/step_N/rank_0.jsonl` of sequences of (engine's, trainer's) logprobs."""
    folder = root / "token_exports" / f"step_{step}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "rank_0.jsonl").open("w") as file:
        for at, sequence in enumerate(pairs):
            size = PROMPT + len(sequence)
            line: dict[str, Any] = {
                "schema_version": 1, "step": step, "export_step": step, "rank": 0, "micro_step": at,
                "micro_sequence_idx": 0, "export_sequence_idx": at, "run_id": None, "env_name": "gsm8k",
                "token_ids": list(range(size)), "position_ids": list(range(size)),
                "loss_mask": [False] * PROMPT + [True] * len(sequence),
                "losses": [{}] * PROMPT + [{"rl": {"advantage": 0.5, "mask": True}}] * len(sequence),
                "rewards": [None] * PROMPT + [1.0] * len(sequence),
                "inference_logprobs": [0.0] * PROMPT + [one for one, _ in sequence],
                "trainer_logprobs": [0.0] * PROMPT + [two for _, two in sequence],
                "mismatch_kl": [None] * size,
            }  # fmt: skip
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
    if stable:
        (folder / "STABLE").touch()
    return folder


def nemo_rl(root: Path, step: int, pairs: Sequence[Sequence[tuple[float, float]]], *, masks: bool = True) -> Path:
    """`train_data_stepN.jsonl`: samples padded on the right, each value in a list of one."""
    root.mkdir(parents=True, exist_ok=True)
    longest = PROMPT + max(map(len, pairs))
    path = root / f"train_data_step{step}.jsonl"
    with path.open("w") as file:
        for at, sequence in enumerate(pairs):
            size = PROMPT + len(sequence)
            padding = longest - size
            line: dict[str, Any] = {
                "content": ["a text"], "rewards": [0.25], "input_lengths": [size],
                "generation_logprobs": [[0.0] * PROMPT + [one for one, _ in sequence] + [0.0] * padding],
                "prev_logprobs": [[0.0] + [-9.0] * (PROMPT - 1) + [two for _, two in sequence] + [-11.0] * padding],
                "idx": at,
            }  # fmt: skip
            if masks:
                line["token_ids"] = [list(range(longest))]
                line["token_loss_mask"] = [[0] * PROMPT + [1] * len(sequence) + [0] * padding]
                line["sample_loss_mask"] = [1.0]
            file.write(json.dumps(line) + "\n")
    return path
