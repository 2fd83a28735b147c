"""The real parts that all cases share, started once: two engines, a model and its trainer."""

from __future__ import annotations

import copy
import queue
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from driftline import config as configuration
from driftline.config import Config
from driftline.frames import Command
from driftline.rundir import RunDir
from engine import EnginePool
from engine.actor import actor
from engine.types import EngineError
from tests.blind.cases import ENGINES, Case, merged
from tests.blind.faults import EngineFault
from tests.blind.faulty_actor import FaultyActor
from tests.blind.faulty_trainer import Acts, FaultyLoop, FaultyScorer
from tests.blind.recorded import JournalProbe
from trainer.control.command_thread import CommandThread
from trainer.control.fix_tracker import FixTracker
from trainer.control.sync_driver import SyncDriver
from trainer.learn.lm_head import Head
from trainer.learn.models import dtype_name
from trainer.learn.policy import Policy
from trainer.learn.tasks import ReverseDigits
from trainer.learn.update import Updater
from trainer.learn.versions import WeightStore
from trainer.report import Reporter
from trainer.session import _first_state
from trainer.setup import Setup, build

CONFIG = """
[run]
name = "blind"
steps = 100
seed = {seed}
[model]
warm_start_batches = {warm}
[task]
digits = 16
prefix = 32             # one block that all prompts share, so that there is something to cache
[engine]
count = 2
max_num_seqs = 16
max_model_len = 96
block_size = 32
kv_cache_gb = 0.25
[sampling]
temperature = {temperature}
max_tokens = 20
[rollout]
prompts = 4
samples = 4             # 16 sequences a step: the frames of tokens hold all of them
ahead = {ahead}
[trainer]
lr = {lr}
passes = 2
head = "float32"        # decided by the cases, not by what engines report
keep_versions = 64
[sync]
every = {every}
[diagnosis]
active = "on-request"   # rounds are asked for where the test has them
[fixes]
processed-logprobs = "on"
inflight-keep = "wait"
fp32-lm-head = "on"
"""
"""A healthy run: caches are read and cleared at each sync, and nothing is in flight across one."""

DRAIN_S = 60.0
PROBED = 96
"""Tokens of each engine in the active round, which is made in the last step."""


@dataclass(frozen=True)
class Variation:
    """What differs between two runs of one case, drawn from its seed."""

    seed: int
    at: int
    """The step whose sync brings a fault that comes later."""
    lr: float

    @classmethod
    def drawn(cls, seed: int) -> Variation:
        """The variation of a seed."""
        rng = np.random.default_rng([seed, 7])
        return cls(seed, int(rng.integers(3, 7)), float(rng.choice([5e-4, 1e-3, 2e-3])))


@dataclass(frozen=True)
class Recorded:
    """A case as it ran: its run directory, the first step that the fault can show in, and what it took."""

    case: Case
    run: RunDir
    onset: int
    tokens: int
    seconds: float


class Stage:
    """`close` it. `steps` are recorded after a fault's onset."""

    def __init__(
        self,
        root: Path,
        seed: int,
        *,
        warm: int = 60,
        temperature: float = 0.7,
        steps: int = 10,
        said: Callable[[str], None] = print,
    ) -> None:
        self._given: dict[str, Any] = {"warm": warm, "temperature": temperature}
        self._steps = steps
        config = self._config(seed, 1e-3, 0, 1)
        home = RunDir(root / f"stage-{seed}")
        home.path.mkdir(parents=True, exist_ok=True)
        self.setup = build(config, home, resume=False, digest="", on_progress=said)
        # Ray carries the class by its name: the workers import this package.
        actor.EngineActor = FaultyActor  # type: ignore[misc]
        self.pool = EnginePool(
            config.engine, config.sampling, model=self.setup.model_path, dtype=dtype_name(self.setup.dtype),
            fixes=config.fixes, log_dir=home.path / "logs", on_progress=said,
        )  # fmt: skip
        self.pool.start()

    def _config(self, seed: int, lr: float, ahead: int, every: int) -> Config:
        text = self.text(seed, lr, ahead, every)
        return configuration.parse(text, "the blind test")

    def text(self, seed: int, lr: float, ahead: int, every: int) -> str:
        """The configuration of a run."""
        return CONFIG.format(seed=seed, lr=lr, ahead=ahead, every=every, **self._given)

    def record(self, case: Case, seed: int, folder: Path) -> Recorded:
        """Run a case from the first model on, and leave it as a recorded run in `folder`."""
        began, varied = time.monotonic(), Variation.drawn(seed)
        run = RunDir(folder)
        probe = JournalProbe(run)
        text = self.text(seed, varied.lr, case.ahead, case.every)
        run.config.write_text(text)
        config = configuration.parse(text, str(run.config))
        at = -(-varied.at // case.every) * case.every if case.later else 0
        try:
            self._run(case, config, run, probe, at)
        finally:
            probe.close()
            self.reset()
        return Recorded(case, run, at + 1, probe.tokens_written, time.monotonic() - began)

    def _run(self, case: Case, config: Config, run: RunDir, probe: JournalProbe, at: int) -> None:
        steps = at + self._steps
        later = {at: lambda: self.inject(case.engines, case.later)} if at else {}
        self.train(case, config, run, probe, steps, lambda _setup: later, {steps: str(PROBED)})

    def train(
        self,
        case: Case,
        config: Config,
        run: RunDir,
        probe: JournalProbe,
        steps: int,
        before_sync: Callable[[Setup], Acts],
        rounds: Mapping[int, str],
    ) -> None:
        """Train so many steps, with what is to happen before some steps' syncs, and active rounds of so many tokens of
        each engine in some steps."""
        setup = self._begin(case, config)
        report = Reporter(probe, _first_state(config, run, steps, ""), setup.tokenizer)  # type: ignore[arg-type]
        fixes = FixTracker(
            self.pool.fix_states(), config.fixes, dict(config.fixes), setup.head, report, version=0, step=0
        )
        syncs = SyncDriver(self.pool, setup.store, report, fixes, setup.head, config.sync)
        commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        control = CommandThread(commands, self.pool, syncs, fixes, report, lease=60.0)
        fixes.send_all()
        report.state(status="running")
        loop = FaultyLoop(config, run, setup, self.pool, syncs, control, fixes, report)

        def ask(step: int, tokens: str) -> Callable[[], object]:
            return lambda: control.probes.request(Command(f"round{step}", "diagnose", {"tokens": tokens}))

        measures = {step: ask(step, tokens) for step, tokens in rounds.items()}
        loop.blind(probe, self.pool, case.trainer, before_sync(setup), measures, late=case.late)
        loop.run(steps)
        report.state(status="finished", detail="")

    def _begin(self, case: Case, config: Config) -> Setup:
        """The trainer as at its start, and engines with the weights of it."""
        first = self.setup
        model = copy.deepcopy(first.policy.model)
        policy = Policy(model, temperature=config.sampling.temperature, fp32_head=True, dtype=first.dtype)
        policy.load(first.reference)
        twin = Policy(copy.deepcopy(model), temperature=policy.temperature, fp32_head=True, dtype=first.dtype)
        store = WeightStore(config.trainer.keep_versions)
        store.publish(0, policy.weights())
        torch.manual_seed(config.run.seed)
        self.pool.sync(first.reference, 0)
        self.inject(case.engines)
        return Setup(
            policy=policy, head=Head(policy, config.trainer.head), updater=Updater(policy, config.trainer),
            scorer=FaultyScorer(twin, store, policy, case.trainer), store=store, reference=first.reference,
            task=ReverseDigits(config.task, first.tokenizer, config.run.seed), tokenizer=first.tokenizer,
            model_path=first.model_path, dtype=first.dtype, start=first.start,
        )  # fmt: skip

    def inject(self, *faults: Mapping[str, EngineFault]) -> None:
        """Make each engine wrong as these say together, and every other one right."""
        import ray

        found: dict[str, EngineFault] = {}
        for one in faults:
            found = merged(found, one)
        members = self.pool._fleet.members
        ray.get([members[name].actor.blind.remote(found.get(name, EngineFault())) for name in ENGINES])

    def reset(self) -> None:
        """Everything right again, with nothing in flight."""
        deadline = time.monotonic() + DRAIN_S
        while self.pool.outstanding:
            self.pool.take(0.5)
            if time.monotonic() > deadline:
                raise EngineError(f"{self.pool.outstanding} groups did not come back within {DRAIN_S:g} s")
        self.inject()

    def close(self) -> None:
        """End the engines."""
        self.pool.close()
