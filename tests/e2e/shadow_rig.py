"""Two real engines in one pool that score each other, the second on another interpreter."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from transformers import Qwen2ForCausalLM

from driftline.config import EngineConfig, EngineGroup, SamplingConfig, ShadowConfig
from engine import EnginePool
from engine.types import RolloutRequest, SyncReport
from tests.e2e.engine_support import LIMIT_S, TEMPERATURE, engine_collect, engine_model, engine_moved, engine_rollouts

GROUPS, SAMPLES = 6, 4
BOTH = {("engine-0", "engine-1"), ("engine-1", "engine-0")}
FIXES_ON = {"processed-logprobs": "on", "fp32-lm-head": "on", "prefix-cache-off": "on"}


@dataclass
class Rig:
    """The pool, what it has reported, the model of its newest weights and their version."""

    pool: EnginePool
    model: Qwen2ForCausalLM
    events: Sequence[tuple[str, object]] = field(default_factory=list)
    version: int = 0

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

    def sync(self, version: int = 0) -> list[SyncReport]:
        """Give both engines clearly other weights, as the next version unless one is given."""
        self.model, self.version = engine_moved(self.model, head_only=False), version or self.version + 1
        return self.pool.sync(dict(self.model.state_dict()), self.version)


def other_interpreter(folder: Path) -> Path:
    """A virtual environment of its own that sees this one's packages: another interpreter, the same versions."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    packages = Path(subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    (packages / "this.pth").write_text(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n")
    return python


@contextmanager
def two_engines(root: Path, environment: str, fixes: Mapping[str, str] | None = None) -> Iterator[Rig]:
    """engine-0 as the tests are, engine-1 in an environment, with every fix on unless `fixes` say otherwise."""
    model = engine_model(root / "model")
    events: list[tuple[str, str]] = []
    pool = EnginePool(
        EngineConfig(
            count=2, max_num_seqs=32, max_model_len=128, kv_cache_gb=0.25, cpus=0.5,
            each=(EngineGroup(), EngineGroup(environment=environment)),
        ),
        SamplingConfig(temperature=TEMPERATURE, max_tokens=8), model=root / "model", dtype="float32",
        fixes=fixes or FIXES_ON, connection=None, keys=None, log_dir=root / "logs", on_progress=lambda _: None,
        on_event=lambda kind, text, *_: events.append((kind, text)), shadow=ShadowConfig(share=1.0),
    )  # fmt: skip
    pool.start()
    with suppress(KeyboardInterrupt):
        yield Rig(pool, model, events)
    pool.close()
