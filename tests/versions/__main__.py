"""Prints how far each vLLM's logprobs are from a float32 forward of torch, before and after a weight update in flight.

    python -m tests.versions                      this environment's vLLM, and those that $DRIFTLINE_ENVIRONMENTS has
    python -m tests.versions vllm-0.18.1 ...      only these (`this` for this environment's)

mean |engine logprob - torch logprob| in nats: torch's processed (penalty, temperature, log_softmax) and raw
(log_softmax alone) of the same tokens under the weights that the engine says each was sampled with. Exit code 1 when an
engine fails that could be started.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from driftline import environments
from tests.e2e.engine_support import VOCABULARY, engine_model, engine_moved

WANTED: Final = ("vllm-0.8.5.post2", "vllm-0.18.1", "this")
TEMPERATURE, TOKENS, PENALTIES = 0.7, 16, (1.0, 1.3)
ROOT: Final = Path(__file__).parents[2]

Floats = npt.NDArray[np.float64]


def main(names: list[str]) -> int:
    """Print the table; returns the exit code."""
    lines, failed = [], False
    with tempfile.TemporaryDirectory(prefix="driftline-versions-") as folder:
        root = Path(folder)
        before = engine_model(root / "model")
        after = engine_moved(before, head_only=False)
        torch.save(dict(after.state_dict()), root / "moved.pt")
        for name in names or WANTED:
            try:
                rows = _sampled(name, root)
            except environments.EnvironmentUnusableError as error:
                lines.append(f"| {name} | not available here: {error} |||||")
                continue
            except subprocess.CalledProcessError as error:
                failed = True
                lines.append(f"| {name} | failed: exit code {error.returncode}; {_last(root / f'{name}.log')} |||||")
                continue
            lines += _lines(name, rows, [before, after])
    print(
        "| engine | logprobs | penalty | tokens under | vs processed | vs raw | tokens |\n|---|---|---|---|---|---|---|"
    )
    print("\n".join(lines))
    return int(failed)


def _sampled(name: str, root: Path) -> dict[str, Any]:
    environment = None if name == "this" else environments.find(name, os.environ)
    python = Path(sys.executable) if environment is None else environment.python
    if environment is not None:
        environments.check(environment)
    v0 = "0.8.5" in name
    order = {
        "environment": "" if environment is None else name, "model": str(root / "model"),
        "out": str(root / f"{name}.npz"),
        "moved": str(root / "moved.pt"), "tokens": TOKENS, "vocabulary": VOCABULARY, "penalties": PENALTIES,
        "modes": ["processed"] if v0 else ["raw", "processed"],
    }  # fmt: skip
    path = root / f"{name}.json"
    path.write_text(json.dumps(order))
    with (root / f"{name}.log").open("wb") as log:
        subprocess.run(
            [python, "-m", "tests.versions.child", str(path)], check=True, stdout=log, stderr=log, cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""} | _preload(environment),
        )  # fmt: skip
    return dict(np.load(root / f"{name}.npz"))


def _preload(environment: environments.Environment | None) -> dict[str, str]:
    return {} if environment is None else dict(environment.variables)


def _last(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return (lines[-1] if lines else "no output")[:160].replace("|", "/")


def _lines(name: str, rows: dict[str, Any], models: list[Any]) -> list[str]:
    found = []
    for row in dict.fromkeys(key.rpartition("/")[0] for key in rows):
        prompts, ids, logprobs, versions = (
            rows[f"{row}/{part}"] for part in ("prompts", "ids", "logprobs", "versions")
        )
        mode, _, number = row.partition("/")
        penalty = float(number) if number else 1.0
        for version in sorted(set(versions[ids >= 0].tolist())):
            here = (versions == version) & (ids >= 0)
            processed, raw = reference(models[int(version)], prompts, ids, penalty)
            one, other = (np.abs(logprobs - of)[here].mean() for of in (processed, raw))
            under = f"w{version}" if number else f"w{version}, {row}"
            shown = mode if number else "processed"
            found.append(f"| {name} | {shown} | {penalty:g} | {under} | {one:.2g} | {other:.2g} | {int(here.sum())} |")
    return found


def reference(model: Any, prompts: Floats, ids: Floats, penalty: float) -> tuple[Floats, Floats]:
    """Processed and raw logprobs of every token, [rows, tokens]; what is no token gets some number."""
    start = prompts.shape[1]
    whole = torch.from_numpy(np.concatenate([prompts, np.maximum(ids, 0)], 1)).long()
    with torch.no_grad():
        logits = model(whole).logits[:, start - 1 : -1].float()
    chosen = whole[:, start:, None]
    raw = torch.log_softmax(logits, -1).gather(2, chosen)[:, :, 0]
    if penalty != 1.0:
        for step in range(logits.shape[1]):
            seen = whole[:, : start + step]
            values = logits[:, step].gather(1, seen)
            logits[:, step].scatter_(1, seen, torch.where(values > 0, values / penalty, values * penalty))
    processed = torch.log_softmax(logits / TEMPERATURE, -1).gather(2, chosen)[:, :, 0]
    return processed.double().numpy(), raw.double().numpy()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
