"""Diagnoses made by hand, one for each state of the cause screen, and what its tests share. The causes are those of the
catalogue."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import pytest
from textual.pilot import Pilot

from console.diagnosis.causes import BY_NAME
from console.diagnosis.model import (
    Attribution,
    Diagnosis,
    Evidence,
    Normal,
    Profile,
    Ranked,
    RuledOut,
    Share,
)
from console.tui.app import ConsoleApp
from console.tui.watch import diagnosing
from driftline.frames import Data
from tests.tui.conftest import screen_text, settle

ENGINES = ("engine-0", "engine-1")
COST = (
    "at the next step: 324 requests of one token to each engine, about 1.9 s of each, and 7 forward passes of the "
    "trainer over these tokens; the step waits for it, generation goes on"
)
"""As a trainer says it before an active round."""
POSITIONS = tuple(map(str, range(24)))
CLASSES = ("0-.01", ".01-.1", ".1-.3", ".3-.7", ".7-.9", ".9-1")


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """The diagnosis follows what comes at once."""
    monkeypatch.setattr(diagnosing, "PAUSE", 0.0)
    monkeypatch.setattr(diagnosing, "SHARE", 0)


def app_of(pilot: Pilot[None]) -> ConsoleApp:
    """The console that a pilot drives."""
    assert isinstance(pilot.app, ConsoleApp)
    return pilot.app


async def until(pilot: Pilot[None], true: Callable[[], bool]) -> str:
    """Draw until something is true; the screen's text then."""
    async with asyncio.timeout(30):
        while not true():
            await pilot.pause(0.01)
            app_of(pilot).refresh_view()
    await settle(pilot)
    return screen_text(pilot)


def figures(version: int, total: float = 0.41, **changes: str | float) -> Data:
    """The answer of an active round that has found raw logprobs and a stale cache, over two engines."""
    engine: Data = {
        "recorded": total, "usual": total, "sampled": 0.35, "lowest": -0.9, "sampling": "", "plain": 0.06,
        "uncached": 1e-5, "cache": 0.06, "held": 1e-5, "other_head": 0.004, "self": 0.0, "raw": 1.0, "seam": math.nan,
        "differing": 0, "compared": 27, "tensors": "", "kind": "equal", "seconds": 1.37, "requests": 324,
        "version": version,
    }  # fmt: skip
    shares = {
        "semantics": 0.85 * total, "inference path": 0.14 * total, "weight update": 0.0, "numerics": 0.01 * total,
        "staleness": 0.0, "data": 0.0,
    }  # fmt: skip
    found: Data = {f"{name}.{key}": value for name in ENGINES for key, value in engine.items()}
    for layer, nats in shares.items():
        found |= {f"share.{layer}": nats, f"share.{layer}.low": 0.9 * nats, f"share.{layer}.high": 1.1 * nats}
    return found | {
        "total": total, "tokens": 192, "note": "", "seconds": 1.62, "version": version, "temperature": 0.7,
        "trainer.self": 0.0, "trainer.dropout": 0.0, "trainer.temperature": 0.7, **changes,
    }  # fmt: skip


def profiles(
    *, engines: tuple[float, ...] = (0.19, 0.2), positions: tuple[float, ...] = (), tails: tuple[float, ...] = ()
) -> tuple[Profile, ...]:
    """The pictures of a run of two engines."""
    at = positions or tuple(0.19 + 0.01 * math.sin(place) for place in range(len(POSITIONS)))
    by_class = tails or (0.62, 0.44, 0.3, 0.17, 0.08, 0.02)
    versions = tuple(map(str, range(1, 41)))
    return (
        Profile("engine", "by engine", ENGINES[: len(engines)], engines),
        Profile("position", "by position in the response", POSITIONS, at),
        Profile("tails", "by the trainer's probability", CLASSES, by_class),
        Profile("onset", "by version of the weights", versions, tuple(0.18 + 0.001 * one for one in range(40))),
    )


def normal(seen: float = 0.19, floor: float = 2e-4) -> Normal:
    times = "normal" if seen <= floor else f"{seen / floor:.0f} times that"
    text = f"up to {floor:g} nats are normal for a float32 body; {seen:g} is {times}"
    return Normal(floor, seen, text, "below 5e-5 at every step, as driftline's own loop measures it")


RAW = Ranked(
    "raw-logprobs",
    BY_NAME["raw-logprobs"],
    0.973,
    (
        Evidence(
            "context", 1.43, "after the same tokens the engine's logprobs are .700 times the trainer's", 6.1, "slope"
        ),
        Evidence("tails", 3.1, "|d| grows with -ln p: .62 nats below p = .01, .02 above .9", 3.4),
        Evidence("onset", 0.18, "mean |d| is .18 nats already under version 0, before any update", 1.2),
    ),
    (Evidence("sign", 0.1, "the mean of d is only .1 of its size", -0.4),),
    since=0,
)
CACHE = Ranked(
    "stale-prefix-cache",
    BY_NAME["stale-prefix-cache"],
    0.9,
    (Evidence("onset", 4.0, "mean |d| grows with the number of updates: 4.0 times the first", 2.8),),
    since=12,
)
RULED_OUT = (
    RuledOut("layer-not-loaded", "a layer was not loaded", "mean |d| was there before any update", 1e-6),
    RuledOut("lag", "old weights alone", "tokens of the newest weights differ as much", 1e-5),
    RuledOut("shifted-ids", "token ids shifted by one", "the best correlation is in place", 1e-9),
)


def cause() -> Diagnosis:
    """Raw logprobs, by a wide margin."""
    shares = (Share("semantics", 0.184, 0.171, 0.197), Share("numerics", 0.006, 0.004, 0.008))
    return Diagnosis(
        "cause",
        "the engine reports logprobs before the temperature, since the start",
        0.973,
        named=("raw-logprobs",),
        ranked=(RAW, Ranked("trainer-temperature", BY_NAME["trainer-temperature"], 0.02)),
        ruled_out=RULED_OUT,
        normal=normal(),
        attribution=Attribution(0.19, shares, "passive", 12_288),
        profiles=profiles(),
        actions=(RAW.cause.action,) if RAW.cause is not None else (),
        tokens=12_288,
        steps=40,
    )


def two_causes() -> Diagnosis:
    """Raw logprobs, and a stale prefix cache behind them."""
    shares = (
        Share("semantics", 0.15, 0.14, 0.16), Share("inference path", 0.03, 0.02, 0.04),
        Share("numerics", 0.01, 0.004, 0.012),
    )  # fmt: skip
    actions = tuple(one.cause.action for one in (RAW, CACHE) if one.cause is not None)
    return Diagnosis(
        "cause",
        "the engine reports logprobs before the temperature; and prefixes cached under older weights are read, since "
        "version 12",
        0.876,
        named=("raw-logprobs", "stale-prefix-cache"),
        ranked=(RAW, CACHE),
        ruled_out=RULED_OUT,
        normal=normal(),
        attribution=Attribution(0.19, shares, "active", 12_288),
        profiles=profiles(positions=tuple(0.4 - 0.01 * place for place in range(len(POSITIONS)))),
        actions=actions,
        tokens=12_288,
        steps=40,
    )


def one_engine() -> Diagnosis:
    """An engine that missed the last sync."""
    behind = BY_NAME["missed-sync"]
    ranked = Ranked(
        "missed-sync", behind, 0.981,
        (Evidence("engine", 44.0, "mean |d| of engine-1 is 44 times that of the others", 8.2),),
        where="engine-1", since=41,
    )  # fmt: skip
    return Diagnosis(
        "cause",
        "engine-1 has not taken the weights of the last sync, since version 41",
        0.981,
        named=("missed-sync",),
        ranked=(ranked,),
        ruled_out=RULED_OUT[:1],
        normal=normal(0.11),
        attribution=Attribution(0.11, (Share("weight update", 0.11, 0.1, 0.12),), "passive", 4_096),
        profiles=profiles(engines=(0.005, 0.22)),
        actions=(behind.action,),
        tokens=4_096,
        steps=12,
        seen=0.25,
    )


def setting() -> Diagnosis:
    """A cause that Driftline cannot repair by itself."""
    ranked = Ranked("top-p", BY_NAME["top-p"], 0.94, RAW.supporting[1:2], since=0)
    return Diagnosis(
        "cause",
        "the engine renormalises over the nucleus of top_p, the trainer does not",
        0.94,
        named=("top-p",),
        ranked=(ranked,),
        ruled_out=RULED_OUT,
        normal=normal(),
        profiles=profiles(),
        actions=(BY_NAME["top-p"].action,),
        tokens=12_288,
    )


def healthy() -> Diagnosis:
    """Nothing wrong beyond the floor."""
    none = Ranked("none", None, 0.996, (Evidence("size", 4e-5, "mean |d| is 4e-5 nats", 5.0),))
    return Diagnosis(
        "normal",
        "nothing wrong beyond the numeric floor: mean |d| 4e-5 nats, 2e-4 is normal",
        0.996,
        ranked=(none,),
        ruled_out=RULED_OUT,
        normal=normal(4e-5),
        attribution=Attribution(4e-5, (Share("numerics", 4e-5, 3e-5, 5e-5),), "passive", 12_288),
        profiles=profiles(engines=(4e-5, 4.1e-5), tails=(9e-5, 6e-5, 4e-5, 3e-5, 1e-5, 1e-6)),
        tokens=12_288,
        steps=40,
    )


def not_known() -> Diagnosis:
    """Something is wrong, and no cause of the catalogue explains it."""
    unknown = Ranked("unknown", None, 0.82)
    return Diagnosis(
        "unknown",
        "something is wrong (mean |d| .19 nats), and not one that I know; the nearest is: logprobs before temperature",
        0.82,
        ranked=(unknown, Ranked("raw-logprobs", BY_NAME["raw-logprobs"], 0.11, RAW.supporting, RAW.opposing)),
        ruled_out=RULED_OUT,
        normal=normal(),
        attribution=Attribution(
            0.19, (Share("numerics", 0.19, 0.17, 0.2),), "passive", 9_000, "what no cause explains is counted here"
        ),
        profiles=profiles(),
        tokens=9_000,
    )


def parts_missing() -> Diagnosis:
    """A cause in an imported log, which says neither which engine nor which weights."""
    found = cause()
    return Diagnosis(
        "cause", found.sentence, 0.91, found.named, found.ranked, found.ruled_out, found.normal,
        missing=(
            "the run's state: temperature and objective are not known",
            "the weights that sampled each token: updates differ by their step alone",
            "which engine sampled a sequence",
        ),
        profiles=found.profiles[1:3], actions=found.actions, tokens=2_400, steps=6,
    )  # fmt: skip


def too_few() -> Diagnosis:
    """Not enough token pairs yet."""
    text = "not enough data: 96 token pairs, 200 are the fewest that can be judged"
    return Diagnosis("not enough data", text, 0.0, missing=("which engine sampled a sequence",), tokens=96)


def guess() -> Diagnosis:
    """A cause that is named with less than even odds."""
    found = setting()
    return Diagnosis(
        "cause", found.sentence, 0.31, found.named, found.ranked, found.ruled_out, found.normal,
        profiles=found.profiles, actions=found.actions, tokens=900,
    )  # fmt: skip
