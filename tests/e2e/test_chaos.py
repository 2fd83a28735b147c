"""Random operator actions over one run with two engines: whatever order they come in, the run ends up as asked.

The engines are on two nodes of a Ray that the run joins: it spreads them, and ends what it has put there, no more.
DRIFTLINE_CHAOS=full (`make chaos`) does 200 of them, the default a few; DRIFTLINE_SEED repeats a printed seed.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import numpy as np
import psutil
import pytest

from driftline.frames import TERMINAL, Ack, EngineState, Event, FixState, RunState, Tokens, floats, ints
from tests.e2e.engine_support import CLOSE
from tests.e2e.live_run import LiveRun, family, gone
from tests.e2e.ray_nodes import Nodes, two_nodes

FULL: Final = {"full": True, "short": False}[os.environ.get("DRIFTLINE_CHAOS", "short")]
ACTIONS: Final = 200 if FULL else 12
KILLS: Final = 4 if FULL else 1
REBUILDS: Final = 2 if FULL else 0
"""Actions that need a rolling restart: more than a minute each on two cores."""
LIMIT_S: Final = 600.0

CONFIG = """
[run]
name = "chaos"
steps = 1000000
[model]
warm_start_batches = 5
[engine]
count = 2
max_num_seqs = 16
max_model_len = 64
kv_cache_gb = 0.25
replacements = 50
[rollout]
prompts = 4
samples = 4
ahead = 4
[trainer]
lr = 1e-5
passes = 1
[hub]
pause_lease = 20.0
[fixes]
processed-logprobs = "on"
prefix-cache-off = "on"
fp32-lm-head = "on"
"""

LIVE: Final = ("processed-logprobs", "prefix-cache-off")
AT_SYNC: Final = {"fp32-lm-head": ("off", "on"), "inflight-keep": ("off", "on", "wait")}


class Operator:
    """Does one random thing at a time and remembers what it has asked for."""

    def __init__(self, live: LiveRun, dice: random.Random) -> None:
        self.live = live
        self.dice = dice
        self.open: dict[str, str] = {}
        self.asked: dict[str, tuple[str, str]] = {}
        self.seconds: list[float] = []
        self.done: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()

    def act(self, action: str) -> None:
        self.done[action] += 1
        match action:
            case "fix":
                began = time.monotonic()
                command = self._fix(self.dice.choice(LIVE), self.dice.choice(("off", "on")))
                if self._end(command).state == "applied":
                    self.seconds.append(time.monotonic() - began)
            case "fix at sync":
                fix = self.dice.choice(sorted(AT_SYNC))
                self._fix(fix, self.dice.choice(AT_SYNC[fix]))
            case "rebuild":
                now = self.fix("prefix-cache-off").requested
                self._fix("prefix-cache-off", "on" if now == "removed" else "removed")
            case "kill":
                self._kill()
            case verb:
                self._send(verb)

    def _fix(self, fix: str, value: str) -> str:
        command = self._send("fix.set", fix=fix, value=value)
        self.asked[command] = fix, value
        return command

    def _send(self, verb: str, **args: str) -> str:
        command = self.live.client.command(verb, args, timeout=LIMIT_S)
        self.open[command] = f"{verb} {' '.join(args.values())}"
        return command

    def _end(self, command: str) -> Ack:
        ack = self.live.client.wait(command, LIMIT_S)
        self.answers[ack.state] += 1
        del self.open[command]
        return ack

    def _kill(self) -> None:
        up = [state for state in _engines(self.live).values() if state.phase not in ("dead", "starting")]
        if up:
            os.kill(self.dice.choice(up).pid, signal.SIGKILL)

    def settle(self) -> None:
        """See every command to its end; a pause must not be what they wait for."""
        self._end(self._send("resume"))
        for command in list(self.open):
            assert self._end(command).state in TERMINAL

    def fix(self, name: str) -> FixState:
        states = [s.frame() for s in self.live.client.snapshot().states]
        return next(s for s in states if isinstance(s, FixState) and s.fix == name)


def plan(dice: random.Random) -> list[str]:
    """The actions in their order; kills and rebuilds are counted, all else is drawn."""
    often = {"fix": 5, "fix at sync": 3, "sync": 3, "pause": 2, "resume": 3}
    drawn = dice.choices(list(often), list(often.values()), k=ACTIONS - KILLS - REBUILDS)
    # The rare ones are spread over the run, so that not everything happens to a pool of one engine.
    for number, action in enumerate(["kill"] * KILLS + ["rebuild"] * REBUILDS):
        share = ACTIONS // (KILLS + REBUILDS)
        drawn.insert(min(len(drawn), number * share + dice.randrange(share)), action)
    return drawn


@pytest.mark.engine
@pytest.mark.timeout(3000 if FULL else 900)
def test_whatever_an_operator_does_the_run_ends_up_as_asked(tmp_path: Path) -> None:
    seed = int(os.environ.get("DRIFTLINE_SEED") or (secrets.randbits(32) if FULL else 7))
    print(f"chaos: {ACTIONS} actions, DRIFTLINE_SEED={seed}")
    dice = random.Random(seed)
    with two_nodes(tmp_path / "nodes.log") as nodes, closing(LiveRun(tmp_path, CONFIG, nodes.environment)) as live:
        trainer = live.train()
        live.wait(lambda: len(live.steps()) >= 3 and len(_gaps(live)) == 2, trainer, LIMIT_S)
        _on_two_nodes(live, nodes)
        operator = Operator(live, dice)
        seen: set[psutil.Process] = set()
        for action in plan(dice):
            assert trainer.poll() is None, live.logs()
            seen |= _processes(live, trainer)
            operator.act(action)
            time.sleep(dice.uniform(0, 0.3))
        operator.settle()
        _as_asked(live, operator, trainer)
        _verified(live, operator)
        seen |= _processes(live, trainer)
        trainer.send_signal(signal.SIGTERM)
        assert trainer.wait(120) == 0, live.logs()
        _none_lost(live)
        assert gone(list(seen)), "a process outlived the trainer"
        assert nodes.process.poll() is None, "the run has left the cluster, which goes on"
        nodes.end()
    done = ", ".join(f"{n} {what}" for what, n in sorted(operator.done.items()))
    answers = ", ".join(f"{n} {state}" for state, n in sorted(operator.answers.items()))
    print(f"chaos: {done}; {answers}; {live.frames(RunState)[-1].step} steps")
    if len(operator.seconds) > 1:
        cuts = statistics.quantiles(operator.seconds, n=100, method="inclusive")
        print(f"chaos: {len(operator.seconds)} live switches, p50 {cuts[49]:.3f} s, p99 {cuts[98]:.3f} s")


def _engines(live: LiveRun) -> dict[str, EngineState]:
    states = [one.frame() for one in live.client.snapshot().states]
    return {state.engine: state for state in states if isinstance(state, EngineState)}


def _processes(live: LiveRun, trainer: subprocess.Popen[str]) -> set[psutil.Process]:
    """What the run has started and is there now: the trainer's, and the engines, which are the cluster's children."""
    found = set(family(trainer))
    for state in _engines(live).values():
        with suppress(psutil.NoSuchProcess):
            actor = psutil.Process(state.pid)
            found |= {actor, *actor.children(recursive=True)}
    return found


def _gaps(live: LiveRun) -> dict[str, float]:
    """By engine: mean |engine - trainer| over the tokens of sequences that no weight update has met."""
    found: dict[str, list[np.ndarray]] = {}
    for tokens in live.frames(Tokens):
        d = np.abs(floats(tokens.trainer) - floats(tokens.rollout))
        versions, rows = ints(tokens.token_version), ints(tokens.seq)
        for row in np.unique(rows):
            if np.ptp(versions[rows == row]) == 0:
                found.setdefault(tokens.engines[row], []).append(d[rows == row])
    return {engine: float(np.concatenate(parts).mean()) for engine, parts in found.items()}


def _on_two_nodes(live: LiveRun, nodes: Nodes) -> None:
    """Both serve, each on its own node, with the trainer's logprobs."""
    gaps = _gaps(live)
    assert sorted(gaps) == ["engine-0", "engine-1"]
    assert max(gaps.values()) < CLOSE, gaps
    assert {psutil.Process(state.pid).ppid() for state in _engines(live).values()} == nodes.raylets
    assert len(nodes.raylets) == 2


def _as_asked(live: LiveRun, operator: Operator, trainer: subprocess.Popen[str]) -> None:
    """Requested is the last value that was applied (or the start's), and every engine reports it."""
    wanted = {"processed-logprobs": "on", "prefix-cache-off": "on", "fp32-lm-head": "on", "inflight-keep": "on"}
    # Not by the order of sending: a switch at a sync is applied later than a live one sent after it.
    for ack in live.frames(Ack):
        if ack.state == "applied" and ack.id in operator.asked:
            fix, value = operator.asked[ack.id]
            wanted[fix] = value

    def settled(fix: str) -> Callable[[], bool]:
        return lambda: operator.fix(fix).settled and len(operator.fix(fix).engines) >= 2

    for fix, value in wanted.items():
        live.wait(settled(fix), trainer, LIMIT_S)
        state = operator.fix(fix)
        assert state.requested == value, state
        assert {engine.effective for engine in state.engines} == {value}, state


def _verified(live: LiveRun, operator: Operator) -> None:
    ack = operator._end(operator._send("sync"))
    assert ack.state == "applied", ack
    for what in ("digest", "version", "ok"):
        values = {ack.data[f"{engine}.{what}"] for engine in ("engine-0", "engine-1")}
        assert len(values) == 1, ack.data
    assert ack.data["engine-0.ok"] is True
    assert ack.data["engine-0.digest"]


def _none_lost(live: LiveRun) -> None:
    account = next(event for event in live.frames(Event) if event.kind == "rollouts.account").data
    assert account["asked"] == account["trained"] + account["dropped"] + account["waiting"] + account["outstanding"]
