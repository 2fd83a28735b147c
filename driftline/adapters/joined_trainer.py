"""A trainer of another framework as the producer `trainer` of a run. What every adapter is made of.

Nothing here raises into the framework, and nothing waits for the hub: an error of ours is a line in the log and an
event, once, and the training goes on without what failed. Only `boundary` waits, while an operator holds the run. In a
process that joins no run (no $DRIFTLINE_RUN, a key that cannot be read, another rank than 0) every method is inert.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from driftline.adapters import pair_words, releases
from driftline.adapters.own_names import OwnNames
from driftline.adapters.pair_words import LeftOut, TrainerLogprob
from driftline.adapters.ranks import own_rank
from driftline.adapters.requests import Requests
from driftline.adapters.sync_spans import POOL, Sync, Synced
from driftline.frames import AckState, Command, Data, Level, RunState, RunStatus
from driftline.keys import TRAINER
from driftline.membership import KEY_VARIABLE, membership
from driftline.pairs import formulas, shown
from driftline.pairs.pairs import Pairs
from driftline.producer.probe import Probe
from driftline.rundir import RUN_VARIABLE, RunError

NO_SYNC: Final = "the framework gives no way to send weights at its step boundary"
NO_STOP: Final = "the framework gives no way to end the training at its step boundary"

Way = tuple[Callable[[], object] | Synced | None, str]
"""How a request is carried out, the sync that has done so already, or None and why it cannot be."""

log = logging.getLogger("driftline.adapters")


class JoinedTrainer:
    """One framework's trainer in one run.

    `installed` is the framework's release, `tested` those that the adapter was tested with, oldest and newest at least.
    `run` is a run's directory, its id, or a connection file of another machine, None for $DRIFTLINE_RUN; `key` is a
    producer's key file, None for $DRIFTLINE_KEY, and without it the key `trainer` of the run directory. `rank` is this
    process among those that train together, None for what torch.distributed or the launcher says: all but 0 are inert.
    """

    def __init__(
        self,
        framework: str,
        installed: str = "",
        tested: Sequence[str] = (),
        *,
        run: str | Path | None = None,
        key: str | Path | None = None,
        rank: int | None = None,
    ) -> None:
        self.framework = f"{framework} {installed}".strip()
        self.world = 1
        self._probe: Probe | None = None
        self._names = OwnNames()
        self._requests: Requests | None = None
        self._state = RunState("", "starting", 0, 0, -1, 0.0, detail=self.framework)
        self._said: set[str] = set()
        self._left = LeftOut()
        self._rng = np.random.default_rng(0)
        self._syncs, self._depth = 0, 0
        self._synced: Synced | None = None
        try:
            self._join(run, key, rank)
        except RunError as error:
            log.warning("driftline: inert: %s", error)
        except Exception as error:  # a trainer must not fall over its console
            log.warning("driftline: inert, because of %s: %s", type(error).__name__, error, exc_info=True)
        if self.active and (why := releases.untested(installed, tested)):
            self.outside_tested(why)

    def _join(self, run: str | Path | None, key: str | Path | None, rank: int | None) -> None:
        own = own_rank()
        self.world = own.world
        if (own.rank if rank is None else rank) != 0:
            log.info("driftline: inert in rank %d: rank 0 reports for all", own.rank if rank is None else rank)
            return
        environ = dict(os.environ)
        environ.update({RUN_VARIABLE: str(run)} if run is not None else {})
        environ.update({KEY_VARIABLE: str(key)} if key is not None else {})
        if not environ.get(RUN_VARIABLE):
            log.info("driftline: inert, because %s names no run", RUN_VARIABLE)
            return
        to = membership(environ, TRAINER)
        self._requests = Requests(self.framework, to.lease, self._ack)
        self._probe = Probe(TRAINER, to.run, keys=to.keys, connection=to.connection, on_command=self._on_command)
        self._state = msgspec.structs.replace(self._state, run=to.id)
        self._send_state()
        self._event("adapter.joined", f"{self.framework} joins run {to.id} as '{TRAINER}'")
        log.info("driftline: this trainer joins run %s as '%s'", to.id, TRAINER)
        atexit.register(self.close, "the trainer's process ended within its training")

    @property
    def active(self) -> bool:
        """Whether this process reports to a run."""
        return self._probe is not None

    @property
    def connected(self) -> bool:
        """True while the hub answers."""
        return self._probe is not None and self._probe.connected

    @property
    def version(self) -> int:
        """The version of the weights that the engines were sent last, -1 before the first sync."""
        return self._state.version

    # -- what a framework reports -------------------------------------------------------------------------------------

    def describe(self, *, steps: int = 0, model: str = "", temperature: float = 1.0, objective: str = "") -> None:
        """What the run is: its number of steps (0: not known), its model, its sampling temperature, its objective."""
        with self.guard("describe"):
            self._send_state(steps=int(steps), model=model, temperature=float(temperature), objective=objective)

    def metrics(self, values: Mapping[str, Any], *, step: int, version: int = -1) -> None:
        """Numbers of one step by the framework's own names; texts and whatever is no number are left out.

        Names that the catalogue knows, for this framework or any, are sent under its name, with a label where the rule
        differs; all others keep their own. `version` -1 is that of the last sync.
        """
        if self._probe is None:
            return
        with self.guard("metrics"):
            numbers, labels = self._names.numbers(values)
            if numbers:
                self._probe.emit(numbers, step=step, version=self._known(version), labels=labels)

    def pairs(
        self,
        pairs: Pairs,
        *,
        step: int,
        version: int = -1,
        logprob: TrainerLogprob,
        temperature: float | None,
        pieces: Callable[[int], str] | None = None,
    ) -> None:
        """Token pairs of one step: `mismatch/*` over all of them, and the tokens of some sequences.

        `logprob` says which of the trainer's logprobs they hold; `temperature` is the sampling temperature that was
        applied to it, None where none was. `pieces` gives a token's text. `version` as in `metrics`.
        """
        if self._probe is None:
            return
        with self.guard("pairs"):
            self._say_once("pairs.kind", pair_words.sentence(logprob, temperature), step)
            for text in self._left.add(pairs):
                self._event("pairs.left-out", text, step=step)
            values = formulas.mismatch(pairs.trainer, pairs.rollout)
            if not values:
                return
            self._names.give(values)
            known = self._known(version)
            word = pair_words.label(pairs, known, logprob, temperature)
            self._probe.emit(values, step=step, version=known, labels=dict.fromkeys(values, word) if word else None)
            frame = shown.frame(pairs, step=step, version=known, time=time.time(), rng=self._rng)
            if frame is not None:
                ids = np.frombuffer(frame.ids, "<i4").tolist()
                texts = {one: str(pieces(one)) for one in set(ids)} if pieces is not None else {}
                self._probe.send(msgspec.structs.replace(frame, pieces=tuple(texts[one] for one in ids if texts)))

    @contextmanager
    def sync(self, step: int, *, version: int | None = None, engine: str = POOL) -> Iterator[Sync]:
        """Around a framework's own sending of weights: its spans, its event, and the version that it leaves behind.

        `version` is that of the weights that are sent, None for the step's number. An error of the framework's is
        recorded and goes on to it. A sync within a sync is part of the outer one.
        """
        going = Sync()
        if self._probe is None or self._depth:
            self._depth += 1
            try:
                yield going
            finally:
                self._depth -= 1
            return
        failed = ""
        self._depth += 1
        try:
            yield going
        except BaseException as error:
            failed = f"{type(error).__name__}: {error}"[:400]
            raise
        finally:
            self._depth -= 1
            with self.guard("sync"):
                self._report_sync(going, step, step if version is None else version, engine, failed)

    def boundary(
        self,
        step: int,
        *,
        sync: Callable[[], object] | None = None,
        no_sync: str = NO_SYNC,
        stop: Callable[[], object] | None = None,
        no_stop: str = NO_STOP,
        just_synced: bool = False,
        no_pause: str = "",
    ) -> None:
        """Call between two steps, on the trainer's own thread, with the number of the step that has ended.

        Carries out what operators have asked for: `sync` sends the weights, `stop` has the framework end its training;
        None refuses with the reason. `just_synced` says that the weights as they are now are those of the last sync,
        which then answers a request for one. Waits here while an operator holds the run, until it is resumed or the
        lease of the pause ends; `no_pause` is why it may not wait. Interrupts and signals go on to the framework.
        """
        if self._probe is None:
            return
        with self.guard("boundary"):
            self._send_state(status="running", step=int(step))
            ways: dict[str, Way] = {"sync": (sync, no_sync), "stop": (stop, no_stop)}
            if just_synced and self._synced is not None and not self._synced.failed:
                ways["sync"] = (self._synced, "")
            if no_pause:
                ways["pause"] = (None, no_pause)
            try:
                self._carry_out(step, ways)
            finally:
                if self._state.status == "paused":
                    assert self._requests is not None, "of an active trainer"
                    self._requests.release("the training was interrupted")
                    self._resumed(step)

    # -- what goes wrong ----------------------------------------------------------------------------------------------

    def hook_missing(self, hook: str, why: str) -> None:
        """A place in the framework that the adapter needs is not there; the rest goes on."""
        self._trouble("adapter.hook-missing", f"{self.framework}: {hook} is not there, so that {why}")

    def not_recorded(self, why: str) -> None:
        """What the framework does not give in this run, as a sentence; said once."""
        self._say_once("adapter.not-recorded", why, self._state.step)

    def outside_tested(self, why: str) -> None:
        """The framework's release is none that the adapter was tested with; it gives what it can."""
        self._trouble("adapter.untested", f"{self.framework}: {why}: it gives what it can")

    @contextmanager
    def guard(self, hook: str) -> Iterator[None]:
        """Around what an adapter does in a framework's call: an error is logged and sent once, and goes no further."""
        try:
            yield
        except Exception as error:  # a trainer must not fall over its console
            words = f"{type(error).__name__}: {error}"[:300]
            if (key := f"{hook}\0{type(error).__name__}") not in self._said:
                self._said.add(key)
                log.warning("driftline: %s of %s cannot be reported: %s", hook, self.framework, words, exc_info=True)
                if self._probe is not None:
                    self._event("adapter.failed", f"{hook}: {words}", "warn", self._state.step)

    def close(self, failed: str = "") -> None:
        """The training has ended; `failed` is why it did not come to its end."""
        probe, requests = self._probe, self._requests
        if probe is None or requests is None:
            return
        with self.guard("close"):
            atexit.unregister(self.close)
            requests.close()
            for text in self._left.rest():
                self._event("pairs.left-out", text, step=self._state.step)
            self._send_state(status="failed" if failed else "finished", detail=failed or self.framework)
            self._probe = None
            probe.close()

    # -- within -------------------------------------------------------------------------------------------------------

    def _carry_out(self, step: int, ways: Mapping[str, Way]) -> None:
        requests = self._requests
        assert requests is not None, "of an active trainer"
        while True:
            while (command := requests.next()) is not None:
                if command.verb == "pause" and "pause" not in ways:
                    pause = requests.hold(command)
                    self._send_state(status="paused", paused_by=pause.by, lease_until=pause.until)
                    self._event("run.paused", f"by {pause.by}, at the end of step {step}", step=step, by=pause.by)
                elif (way := ways.get(command.verb)) is None:
                    self._ack(command.id, "refused", f"this trainer does not know {command.verb}", {})
                else:
                    self._do(command, step, *way)
            if (now := requests.pause) is None and self._state.status == "paused":
                self._resumed(step)
            elif now is not None and now.until != self._state.lease_until:  # renewed meanwhile
                self._send_state(paused_by=now.by, lease_until=now.until)
            if now is None:
                return
            requests.wait()

    def _do(self, command: Command, step: int, act: Callable[[], object] | Synced | None, why_not: str) -> None:
        if act is None:
            self._ack(command.id, "refused", why_not, {})
            return
        if isinstance(act, Synced):
            text = f"the engines hold v{act.version} already: {self.framework} has sent it at the end of step {step}"
            self._ack(command.id, "applied", text, {"step": step, **_of(act)})
            return
        self._ack(command.id, "accepted", f"at the end of step {step}", {})
        by, before = command.issuer or "?", self._synced
        try:
            act()
        except Exception as error:  # noqa: BLE001  what an operator asked for fails for the operator, not for the run
            words = f"{type(error).__name__}: {error}"[:400]
            self._ack(command.id, "failed", words, {})
            self._event("command.failed", f"{command.verb}, by {by}: {words}", "error", step)
            return
        data: Data = {"step": step}
        if command.verb == "stop":
            assert self._requests is not None, "of an active trainer"
            self._requests.release(f"{by} has the run end")
            self._event("run.stop", f"asked for by {by}", step=step)
        elif (done := self._synced) is not None and done is not before:
            data |= _of(done)
        self._ack(command.id, "applied", f"at the end of step {step}", data)

    def _resumed(self, step: int) -> None:
        assert self._requests is not None, "of an active trainer"
        self._send_state(status="running", paused_by="", lease_until=0.0)
        self._event("run.resumed", self._requests.ended_by, step=step)

    def _report_sync(self, going: Sync, step: int, version: int, engine: str, failed: str) -> None:
        assert self._probe is not None, "the caller looks"
        self._syncs += 1
        before, seconds = self.version, going.seconds
        done = self._synced = Synced(f"sync-{self._syncs}", before if failed else version, seconds, failed)
        for span in going.spans(done, before, step, engine):
            self._probe.send(span)
        if failed:
            self._event("sync.failed", f"v{version}: {failed}", "error", step, sync=done.name)
            return
        self._names.give(["sync/total_s"])
        self._probe.emit({"sync/total_s": seconds}, step=step, version=version)
        self._send_state(version=version)
        text = f"v{version} in {seconds:.3f} s, by {self.framework}"
        self._event("sync.done", text, step=step, sync=done.name, version=version)

    def _on_command(self, command: Command) -> None:
        """On the probe's thread."""
        assert self._requests is not None, "made before the probe"
        if command.verb == "mark":
            by = command.issuer or "?"
            self._event("mark", command.args.get("text", ""), step=self._state.step, by=by)
            self._ack(command.id, "applied", "", {})
        else:
            self._requests.take(command)

    def _known(self, version: int) -> int:
        return version if version >= 0 else self.version

    def _trouble(self, kind: str, text: str) -> None:
        if self._probe is not None and text not in self._said:
            self._said.add(text)
            log.warning("driftline: %s", text)
            self._event(kind, text, "warn", self._state.step)

    def _say_once(self, kind: str, text: str, step: int) -> None:
        if text not in self._said:
            self._said.add(text)
            self._event(kind, text, step=step)

    def _event(self, kind: str, text: str, level: Level = "info", step: int = -1, **data: Any) -> None:
        if self._probe is not None:
            self._probe.event(kind, text, level, step, **data)

    def _ack(self, command: str, state: AckState, detail: str, data: Data) -> None:
        if self._probe is not None:
            self._probe.ack(command, state, detail, data)

    def _send_state(self, status: RunStatus | None = None, **changes: Any) -> None:
        if self._probe is None:
            return
        changes |= {"status": status} if status is not None else {}
        self._state = msgspec.structs.replace(self._state, **changes, time=time.time())
        self._probe.send(self._state)


def _of(synced: Synced) -> Data:
    return {"sync": synced.name, "version": synced.version, f"{POOL}.total_s": synced.seconds}


__all__ = ["JoinedTrainer", "Sync", "Synced", "TrainerLogprob"]
