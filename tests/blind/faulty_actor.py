"""An engine's actor that can be made wrong: the real one, with real faults at the places where frameworks have them.

What it reports of itself (fix states, sync reports) is what it would say without the fault: none of it tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from driftline.frames import EngineFix
from engine.actor.actor import EngineActor
from engine.actor.host import Sampling
from engine.actor.v1 import V1Host
from engine.plugin import worker
from engine.types import PauseMode, Sequence, SyncReport
from engine.weights.publish import digest, publish, read
from engine.weights.transport import Update
from tests.blind.faults import EngineFault


class FaultyActor(EngineActor):
    """`blind` sets its fault; a healthy one is as the class that it extends."""

    _fault = EngineFault()
    _healthy: dict[str, EngineFix] | None = None
    _held: dict[str, torch.Tensor] | None = None

    async def blind(self, fault: EngineFault) -> None:
        """Be wrong like this from now on."""
        core = self._require()
        if self._healthy is None:
            healthy = self._healthy = self._switches.last_read()
            # Attributes of the instances, so that the product's own code calls them.
            self._hide("last_read", lambda: healthy)
            core.pause = self._pausing(core.pause)  # type: ignore[method-assign]
            core.reset_prefix_cache = self._resetting(core.reset_prefix_cache)  # type: ignore[method-assign]
        self._fault = EngineFault()
        if not (fault.stale_cache or fault.keep_kv):
            await core.reset_prefix_cache()
        await core.ask(worker.APPLY, logprobs_mode=fault.mode, head_dtype=fault.head)
        self._fault = fault

    async def sync(
        self,
        update: Update,
        version: int,
        expected: str,
        *,
        resume: bool = True,
        fixes: Mapping[str, str] | None = None,
    ) -> SyncReport:
        """The real sync, of the weights that the fault makes of those that were sent."""
        sent = {name: tensor.clone() for name, tensor in read(dict(update))}
        held = self._fault.weights(sent, self._held or _of_model(Path(self._spec.model)))
        self._held = held
        if not self._fault.of_weights:
            return await super().sync(update, version, expected, resume=resume, fixes=fixes)
        with publish(held) as own:
            report = await super().sync(own, version, digest(held), resume=resume, fixes=fixes)
        return replace(report, digest=expected)

    def _sampling(self, n: int) -> Sampling:
        asked = super()._sampling(n)
        return replace(asked, more={**asked.more, **self._fault.sampling})

    def _sequence(self, output: Any) -> Sequence:
        found = super()._sequence(output)
        if self._fault.decimals < 0:
            return found
        return replace(found, logprobs=np.round(found.logprobs, self._fault.decimals))

    def _hide(self, name: str, value: Callable[..., Any]) -> None:
        setattr(self._switches, name, value)

    def _pausing(self, pause: Callable[..., Any]) -> Callable[..., Any]:
        async def paused(mode: PauseMode, *, settle: bool = True) -> None:
            llm, fault = cast(V1Host, self._require().host)._llm, self._fault
            if fault.keep_kv:
                await llm.pause_generation(mode="keep", clear_cache=False)
            elif fault.stale_cache:
                await llm.pause_generation(mode=mode, clear_cache=False)
            else:
                await pause(mode, settle=settle)

        return paused

    def _resetting(self, reset: Callable[..., Any]) -> Callable[..., Any]:
        async def freed() -> bool:
            return True if self._fault.stale_cache or self._fault.keep_kv else bool(await reset())

        return freed


def _of_model(folder: Path) -> dict[str, torch.Tensor]:
    """The weights that the engine has started with."""
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))
