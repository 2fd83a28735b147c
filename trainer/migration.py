"""`python -m trainer.migration ORDER.json`: two engines on the same prompts and weights, compared layer by layer.

No training: the trainer's model is moved a little between two passes over the same prompts, as a step would, and
loaded into both engines; so a prefix cache that outlives a weight update shows. Each engine scores what the other has
sampled, and torch scores both. The answer is one JSON file, which `console/environments/page.py` puts into words. Exit
code 0 with an answer, 1 with a sentence on stderr, 2 for an order that cannot be read.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import torch
from transformers import PreTrainedModel

from driftline import bounded_file
from driftline.catalog.fixes import ON
from driftline.config import Config, EngineConfig, EngineGroup, ModelConfig, SamplingConfig, ShadowConfig
from driftline.migration import LAYERS, Answer, Difference, Order, Row, Side
from engine import EngineError, EnginePool, Group, RolloutRequest
from trainer.errors import TrainerError
from trainer.learn import models

MOVE: Final = 0.05
"""A step of the weights between two passes, in each tensor's own standard deviations."""
SETTLED_S: Final = 60.0
"""Longest wait for the scores of what has been sampled."""
TAKE_S: Final = 120.0
_ORDER_BYTES: Final = 16 << 20


class Comparison:
    """Both engines, up, with the model that they have."""

    def __init__(self, order: Order, pool: EnginePool, model: PreTrainedModel, prompts: list[list[int]]) -> None:
        self._order, self._pool, self._model, self._prompts = order, pool, model, prompts
        self._version = 0
        self.skipped = 0

    def row(self, name: str, fix: str) -> Row:
        """Sample every prompt under weights that were loaded while the prompts' blocks of older ones were cached.

        On both engines, by what one samples and the other scores: or two engines of one version would part by which of
        them has which block.
        """
        self._scored(self._sampled())
        self._update()
        self._pool.take_shadow()
        groups = self._sampled()
        pairs, skipped = self._scored(groups)
        self.skipped += skipped
        states = self._pool.fix_states()
        values = tuple({fix_id: both[at].effective for fix_id, both in states.items()} for at in (0, 1))
        against = self._against_torch(groups)
        return Row(
            name, fix, (values[0], values[1]), pairs.get(("engine-0", "engine-1")), pairs.get(("engine-1", "engine-0")),
            against.get("engine-0"), against.get("engine-1"),
        )  # fmt: skip

    def _sampled(self) -> list[Group]:
        for number, prompt in enumerate(self._prompts):
            self._pool.submit(RolloutRequest(number, prompt, self._order.samples))
        found: list[Group] = []
        while len(found) < len(self._prompts):
            got = self._pool.take(TAKE_S)
            if not got:
                raise EngineError(f"no engine gave a group within {TAKE_S:g} s")
            found += got
        return found

    def _update(self) -> None:
        self._version += 1
        torch.manual_seed(self._order.seed + self._version)
        with torch.no_grad():
            for parameter in self._model.parameters():
                if parameter.numel() > 1:
                    parameter.add_(torch.randn_like(parameter) * parameter.std() * MOVE)
        weights = {name: tensor.detach().clone() for name, tensor in self._model.state_dict().items()}
        for report in self._pool.sync(weights, self._version):
            if not report.ok:
                raise EngineError(f"{report.engine}: did not take the weights: {report.detail}")

    def _scored(self, groups: list[Group]) -> tuple[dict[tuple[str, str], Difference], int]:
        """Differences by sampler and scorer, and how many tokens were left out."""
        wanted = sum(len(one.ids) for group in groups for one in group.sequences)
        found: dict[tuple[str, str], list[np.ndarray]] = {}
        seen, skipped, deadline = 0, 0, time.monotonic() + SETTLED_S
        while seen < wanted and time.monotonic() < deadline:
            step = self._pool.take_shadow()
            skipped += step.skipped
            seen += step.skipped
            for pair in step.pairs:
                seen += len(pair.differences)
                found.setdefault((pair.sampled, pair.scored), []).append(pair.differences)
            time.sleep(0.05)
        return {name: _difference(np.concatenate(parts)) for name, parts in found.items()}, skipped

    def _against_torch(self, groups: list[Group]) -> dict[str, Difference]:
        found: dict[str, list[np.ndarray]] = {}
        for group in groups:
            for one, reference in zip(group.sequences, self._reference(group), strict=True):
                if (one.versions == self._version).all():
                    found.setdefault(group.engine, []).append(np.abs(one.logprobs - reference))
        return {name: _difference(np.concatenate(parts)) for name, parts in found.items()}

    def _reference(self, group: Group) -> list[np.ndarray]:
        """log_softmax(logits / temperature) of the sampled tokens, in float32, from a plain forward."""
        start, longest = len(group.prompt_ids), max(len(one.ids) for one in group.sequences)
        ids = torch.zeros(len(group.sequences), start + longest, dtype=torch.long)
        ids[:, :start] = torch.tensor(group.prompt_ids)
        for row, one in zip(ids, group.sequences, strict=True):  # padding on the right reaches no token before it
            row[start : start + len(one.ids)] = torch.from_numpy(one.ids.copy())
        with torch.no_grad():
            logits: Any = self._model(ids).logits[:, start - 1 : -1].float()
        logprobs = torch.log_softmax(logits / self._order.temperature, -1)
        chosen = logprobs.gather(2, ids[:, start:, None])[:, :, 0].numpy()
        return [row[: len(one.ids)] for row, one in zip(chosen, group.sequences, strict=True)]


def _difference(differences: np.ndarray) -> Difference:
    return Difference(float(differences.mean()), float(differences.max()), len(differences))


def compare(order: Order, on_progress: Callable[[str], None]) -> Answer:
    """Start both engines, compare them layer by layer, end them. Raises EngineError and TrainerError."""
    began = time.monotonic()
    folder = Path(order.folder)
    folder.mkdir(parents=True, exist_ok=True)
    model, path, dtype = _model(order, folder)
    half = models.dtype_name(dtype) != "float32"
    model.to(dtype)
    prompts = order.prompts or _random_prompts(order, int(model.config.vocab_size))
    length = max(map(len, prompts)) + order.tokens
    pool = EnginePool(
        EngineConfig(
            count=2, max_num_seqs=max(8, order.samples * 8), max_model_len=-(-length // 32) * 32, kv_cache_gb=0.5,
            cpus=0.5, transport="shm", each=tuple(EngineGroup(environment=one) for one in order.environments),
        ),
        SamplingConfig(temperature=order.temperature, max_tokens=order.tokens), model=path,
        dtype=models.dtype_name(dtype),
        # The head of a float32 model is float32 in every vLLM: "off" would be ours.
        fixes={} if half else {"fp32-lm-head": ON},
        log_dir=folder / "logs", on_progress=on_progress,
        shadow=ShadowConfig(share=1.0, positions=order.tokens, queue=1024),
    )  # fmt: skip
    with pool:
        states = pool.fix_states()
        sides = tuple(
            Side(
                named, info.python, info.vllm, info.backend,
                {fix_id: (both[at].effective, both[at].detail) for fix_id, both in states.items()},
            )
            for at, (named, info) in enumerate(zip(order.environments, pool.infos, strict=True))
        )  # fmt: skip
        comparison = Comparison(order, pool, model, prompts)
        on_progress("both as they come: their vLLM's defaults")
        rows = [comparison.row("as they come", "")]
        for name, fix in LAYERS:
            if fix == "fp32-lm-head" and not half:
                continue
            on_progress(f"{name}: {fix} on")
            pool.apply_fix(fix, ON)  # one that comes with a sync comes with the next, which `row` begins with
            rows.append(comparison.row(name, fix))
    return Answer(
        (sides[0], sides[1]), rows, models.dtype_name(dtype), order.model, len(prompts), order.samples,
        order.temperature, MOVE, comparison.skipped, time.monotonic() - began,
    )  # fmt: skip


def _model(order: Order, folder: Path) -> tuple[PreTrainedModel, Path, torch.dtype]:
    torch.set_num_threads(1)
    dtype = models.resolve_dtype(order.dtype, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if order.model:
        path = Path(order.model).expanduser().resolve()
        model, _ = models.load_path(path)
        return model.eval(), path, dtype
    model, tokenizer = models.load(Config(model=ModelConfig(seed=order.seed)))
    with torch.no_grad():
        head: Any = model.get_output_embeddings()
        head.weight.mul_(12)  # of a random model every distribution is flat, and nothing that bends one would show
    models.export(model, tokenizer, folder / "model", dtype)
    return model.eval(), folder / "model", dtype


def _random_prompts(order: Order, vocabulary: int) -> list[list[int]]:
    rng = np.random.default_rng(order.seed)
    found: list[list[int]] = rng.integers(3, vocabulary, (order.count, 40)).tolist()
    return found


def main(arguments: list[str]) -> int:
    """Read the order, write the answer beside it; returns the exit code."""
    try:
        (name,) = arguments
    except ValueError:
        print("migration: no order: usage: python -m trainer.migration ORDER.json", file=sys.stderr)
        return 2
    path = Path(name)
    try:
        order = msgspec.json.decode(bounded_file.read(path, _ORDER_BYTES), type=Order)
    except (OSError, msgspec.MsgspecError) as error:
        print(f"migration: no order: {error}", file=sys.stderr)
        return 2
    try:
        answer = compare(order, lambda text: print(text, flush=True))
    except (EngineError, TrainerError) as error:
        print(f"migration: {error}", file=sys.stderr, flush=True)
        return 1
    draft = path.with_name("answer.json.new")
    draft.write_bytes(msgspec.json.encode(answer))
    draft.replace(path.with_name("answer.json"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
