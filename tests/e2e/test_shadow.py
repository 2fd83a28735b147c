"""Two real engines in one pool, the second on another interpreter: each scores what the other has sampled."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from transformers import Qwen2ForCausalLM

from driftline.config import EngineConfig, EngineGroup, SamplingConfig, ShadowConfig
from engine import EnginePool
from engine.types import RolloutRequest, SyncReport
from tests.e2e.engine_support import (
    CLOSE,
    LIMIT_S,
    PROMPT,
    VOCABULARY,
    engine_collect,
    engine_model,
    engine_moved,
    engine_rollouts,
)

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

GROUPS, SAMPLES = 6, 4
BOTH = {("engine-0", "engine-1"), ("engine-1", "engine-0")}


def other_interpreter(folder: Path) -> Path:
    """A virtual environment of its own that sees this one's packages: another interpreter, the same versions."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    packages = Path(subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    (packages / "this.pth").write_text(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n")
    return python


@dataclass
class Rig:
    """The pool, what it has reported, and the model of its first weights."""

    pool: EnginePool
    python: Path
    model: Qwen2ForCausalLM
    events: list[tuple[str, str]] = field(default_factory=list)

    def compared(self, least: int = 50, prompts: list[list[int]] | None = None) -> dict[tuple[str, str], np.ndarray]:
        """Differences by (sampler, scorer), of groups sampled now, once both directions have so many tokens.

        Fresh prompts, unless `prompts` are given.
        """
        self.pool.take_shadow()
        found: dict[tuple[str, str], np.ndarray] = {}
        deadline = time.monotonic() + LIMIT_S
        while any(len(found.get(pair, ())) < least for pair in BOTH):
            assert time.monotonic() < deadline, f"{ {pair: len(one) for pair, one in found.items()} }, {self.events}"
            if prompts is None:
                engine_rollouts(self.pool, GROUPS, SAMPLES)
            else:
                for group, prompt in enumerate(prompts):
                    self.pool.submit(RolloutRequest(group, prompt, SAMPLES))
                engine_collect(self.pool, len(prompts))
            settled = time.monotonic() + 5.0
            while time.monotonic() < settled and any(len(found.get(pair, ())) < least for pair in BOTH):
                for pair in self.pool.take_shadow().pairs:
                    key = (pair.sampled, pair.scored)
                    found[key] = np.concatenate([found.get(key, np.zeros(0)), pair.differences])
                time.sleep(0.05)
        print({pair: f"{one.mean():.2g}, at most {one.max():.2g}, over {len(one)}" for pair, one in found.items()})
        return found

    def sync(self, version: int) -> list[SyncReport]:
        moved = engine_moved(self.model, head_only=False)
        return self.pool.sync(dict(moved.state_dict()), version)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    root = tmp_path_factory.mktemp("shadow")
    python, model = other_interpreter(root / "venv"), engine_model(root / "model")
    events: list[tuple[str, str]] = []
    pool = EnginePool(
        EngineConfig(
            count=2, max_num_seqs=32, max_model_len=128, kv_cache_gb=0.25, cpus=0.5,
            each=(EngineGroup(), EngineGroup(environment=str(python))),
        ),
        SamplingConfig(temperature=0.7, max_tokens=8), model=root / "model", dtype="float32",
        fixes={"processed-logprobs": "on", "fp32-lm-head": "on", "prefix-cache-off": "on"},
        connection=None, keys=None, log_dir=root / "logs", on_progress=lambda _: None,
        on_event=lambda kind, text, *_: events.append((kind, text)), shadow=ShadowConfig(share=1.0),
    )  # fmt: skip
    pool.start()
    with suppress(KeyboardInterrupt):
        yield Rig(pool, python, model, events)
    pool.close()


def test_an_engine_runs_on_the_interpreter_of_its_environment(rig: Rig) -> None:
    own, other = rig.pool.infos
    assert (own.python, other.python) == (sys.executable, str(rig.python))
    states = {state.engine: state for state in rig.pool.stats().engines}
    assert states["engine-1"].environment == str(rig.python)
    assert states["engine-0"].environment == ""
    assert all(state.vllm for state in states.values())


def test_engines_with_the_fixes_on_agree_token_by_token_also_after_a_sync(rig: Rig) -> None:
    for pair, found in rig.compared().items():
        assert found.mean() < CLOSE, f"{pair}: {found.mean()} over {len(found)} tokens"
    reports = rig.sync(1)
    assert [report.ok for report in reports] == [True, True]
    assert len({report.digest for report in reports}) == 1
    assert {report.verified for report in reports} == {"held"}
    for pair, found in rig.compared().items():
        assert found.mean() < CLOSE, f"{pair} after the sync: {found.mean()} over {len(found)} tokens"


def test_raw_logprobs_of_one_engine_show_in_both_directions(rig: Rig) -> None:
    (report,) = rig.pool.set_fix("processed-logprobs", "off", "engine-1")
    assert (report.effective, report.wanted) == ("off", "off")
    try:
        for pair, found in rig.compared().items():
            assert found.mean() > 100 * CLOSE, f"{pair}: {found.mean()} over {len(found)} tokens"
    finally:
        rig.pool.set_fix("processed-logprobs", "on", "engine-1")
    for pair, found in rig.compared().items():
        assert found.mean() < CLOSE, f"{pair}, back on: {found.mean()}"


def test_a_stale_prefix_cache_of_one_engine_shows_in_both_directions(rig: Rig) -> None:
    """The same prompts before and after a sync: engine-1 goes on over blocks of the older weights."""
    prompts = np.random.default_rng(5).integers(2, VOCABULARY, (GROUPS, PROMPT)).tolist()
    rig.pool.set_fix("prefix-cache-off", "off", "engine-1")
    try:
        rig.compared(prompts=prompts)
        assert all(report.ok for report in rig.sync(2))
        for pair, found in rig.compared(prompts=prompts).items():
            assert found.mean() > 100 * CLOSE, f"{pair}: {found.mean()} over {len(found)} tokens"
    finally:
        rig.pool.set_fix("prefix-cache-off", "on", "engine-1")
    for pair, found in rig.compared(prompts=prompts).items():
        assert found.mean() < CLOSE, f"{pair}, back on: {found.mean()}"
