"""The fixes of one engine: what they are, read back, and switching them so that every token knows its state."""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec.structs import replace

from driftline.catalog.fixes import OFF, ON
from driftline.frames import EngineFix
from engine import fixes
from engine.actor.core import Core
from engine.actor.epochs import Epochs
from engine.plugin import worker
from engine.plugin.report import Facts, WorkerFacts, logprobs_mode
from engine.types import EngineError

AT_START: Final = ("processed-logprobs", "fp32-lm-head", "prefix-cache-off")
"""Fixes that an engine is given once it is up; the others are arguments of its construction or of a sync."""


class FixSwitches:
    """Not thread-safe: the actor's lock serialises the calls."""

    def __init__(self, core: Core, epochs: Epochs, wanted: dict[str, str]) -> None:
        self._core = core
        self._epochs = epochs
        self._facts = Facts(core.built)
        self._since: dict[str, int] = {}
        self._freed: bool | None = None
        self.skip_prefix_reads = False
        self.inflight = wanted["inflight-keep"]

    async def start(self, wanted: dict[str, str]) -> None:
        """Bring the fixes to their values at start; the first epoch begins with them."""
        await self.read()
        for fix_id in AT_START:
            state, value = self.last_read()[fix_id], wanted[fix_id]
            # What this vLLM cannot be otherwise is said in the state's detail: see `engine.pool.admission`.
            if state.effective not in (value, "removed") and not fixes.refusal(state, fix_id, value):
                await self._apply(fix_id, value)
        self._epochs.describe(self.states())
        await self._core.stamp(self._epochs.label)

    async def read(self) -> dict[str, EngineFix]:
        """Every fix of the catalogue, read back now."""
        self._facts = await self._core.facts()
        return self.last_read()

    def last_read(self) -> dict[str, EngineFix]:
        """Every fix as it was when it was last read back; only this object switches any."""
        core = replace(self._facts.core, skip_reads=self.skip_prefix_reads, freed=self._freed)
        facts = replace(self._facts, core=core, since=dict(self._since))
        return fixes.describe(self._core.name, facts, self.inflight)

    def states(self) -> dict[str, str]:
        """Fix id to effective value, as last read back."""
        return {fix_id: state.effective for fix_id, state in self.last_read().items()}

    @property
    def prefix_cache_off(self) -> str:
        """The value that a request submitted now has for as long as it lives."""
        return self.last_read()["prefix-cache-off"].effective

    async def switch(self, fix_id: str, value: str, *, running: bool) -> EngineFix:
        """Make a live fix so; returns the state read back. Raises EngineError where it cannot be.

        The label before, the switch and the label after go out together: three messages, one wait.
        """
        if sentence := fixes.not_live(self.last_read()[fix_id], fix_id, value):
            raise EngineError(sentence)
        if self.last_read()[fix_id].effective == value:
            return (await self.read())[fix_id]
        core, epochs = self._core, self._epochs
        stand = running and not core.host.exact_stamps
        if stand:
            await core.pause("keep")
        _, outcome, _ = await asyncio.gather(
            core.stamp(epochs.between), self._apply(fix_id, value), core.stamp(epochs.following), return_exceptions=True
        )
        if isinstance(outcome, EngineError):
            await self.read()
        epochs.enter(self.states())
        if stand:
            await core.resume(epochs.label)
        if isinstance(outcome, BaseException):
            raise outcome
        self._since[fix_id] = epochs.version
        return self.last_read()[fix_id]

    def head_dtype(self, value: str | None) -> str:
        """The dtype that a sync has to switch the head to for a value of `fp32-lm-head`; "" for none."""
        return "" if value is None else fixes.head_dtype(value, self._facts.workers[0].model_dtype)

    def on_synced(self, facts: WorkerFacts | None, version: int) -> bool:
        """Take in what a sync read back, after `inflight` was set; whether that begins a new epoch."""
        before = self._epochs.states([self._epochs.epoch])[self._epochs.epoch]
        if facts is not None:
            self._facts = replace(self._facts, workers=(facts,))
        for fix_id, value in self.states().items():
            if value != before[fix_id]:
                self._since[fix_id] = version
        return self._epochs.enter_if_changed(self.states())

    async def _apply(self, fix_id: str, value: str) -> None:
        if fix_id == "processed-logprobs":
            self._facts = await self._core.facts(worker.APPLY, logprobs_mode=logprobs_mode(value))
        elif fix_id == "fp32-lm-head":
            self._facts = await self._core.facts(worker.APPLY, head_dtype=self.head_dtype(value))
        elif fix_id == "prefix-cache-off" and value in (ON, OFF):
            # First the reads, then the reset: no request that is submitted in between reads an old block.
            self.skip_prefix_reads = value == ON
            self._freed = await self._core.reset_prefix_cache() if value == ON else None
        else:
            raise EngineError(f"{self._core.name}: {fix_id} {value} is not switched live")
