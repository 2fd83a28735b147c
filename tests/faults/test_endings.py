"""Fault 29: every verb ends soon after SIGINT, SIGTERM and SIGHUP, whatever it does just then, and leaves no file."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from console.cli.arguments import build
from console.export.write import FORMATS
from driftline.frames import RunState
from driftline.keys import make_run_keys
from driftline.producer.probe import Probe
from driftline.rundir import RunDir
from tests.bench.journals import metrics_run
from tests.faults.endings import Phase, Verb, stopped
from tests.faults.scale import FULL, scaled
from tests.unit.hubs import PATIENCE, Hub

pytestmark = pytest.mark.timeout(240)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PROMISED = 2.0
LIMIT = 3 * PROMISED
"""Seconds. A machine that runs other tests beside this one gives a process a third of a core, not more."""
STEPS = scaled(30_000, 200_000)
CROSS = "SELECT sum(a.step * b.version) AS x FROM metrics a CROSS JOIN metrics b WHERE a.step + b.step > 7"
"""One call of Polars that takes minutes."""


class World(NamedTuple):
    """`ended` is a large run, `frozen` one whose hub is stopped, `live` one whose hub answers; nothing listens on
    `silent` but a port."""

    ended: RunDir
    frozen: RunDir
    live: RunDir
    log: Path
    silent: int


class Case(NamedTuple):
    """`words` of a verb in `phase`; stopped `then` seconds after its beginning and after `until` was printed.

    `alone`: not beside another one, for there is one lease, one port, or all of the machine's memory.
    """

    phase: Phase
    words: Callable[[World], tuple[str, ...]]
    then: float = 0.2
    until: str = ""
    terminal: bool = False
    alone: bool = False


def at(run: str, *words: str) -> Callable[[World], tuple[str, ...]]:
    """The words with the path of a run of the world at `RUN`, and the silent port at `PORT`."""
    return lambda world: tuple(
        str(getattr(world, run).path) if word == "RUN" else word.replace("PORT", str(world.silent)) for word in words
    )


def busy(*words: str, then: float = 0.2, terminal: bool = False) -> Case:
    return Case("busy", at("ended", *words), then, terminal=terminal)


def waiting(*words: str, terminal: bool = False) -> Case:
    return Case("waiting", at("frozen", *words), 0.5, terminal=terminal)


def held(verb: str) -> Case:
    return Case("waiting", at("live", verb, "--wait", "--run", "RUN"), 0.5, alone=True)


ABROAD = "ssh://127.0.0.1:{port}/run"
CASES: dict[str, tuple[Case, ...]] = {
    "run": (),
    "demo": (),
    "parity": (),
    "simulate": (Case("busy", at("ended", "simulate", "--steps", "0"), 0.0, "ctrl-C ends it"),),
    "hub": (Case("waiting", at("ended", "hub"), 0.0, "ctrl-C ends the hub"),),
    "follow": (
        Case("waiting", lambda w: ("follow", str(w.log.with_name("none.jsonl"))), 0.0, "ctrl-C ends the following"),
        Case("busy", lambda w: ("follow", str(w.log)), 0.3, "ctrl-C ends the following"),
    ),
    "attach": (waiting("attach", "RUN", terminal=True), Case("busy", at("live", "attach", "RUN"), 2.0, terminal=True)),
    "replay": (busy("replay", "RUN", then=1.0, terminal=True),),
    "evidence": (busy("evidence", "RUN", "--out", "e"), busy("evidence", "RUN", "--out", "e", then=2.5)),
    "list": (),
    "status": (busy("status", "--run", "RUN"), waiting("status", "--run", "RUN")),
    "tail": (busy("tail", "--run", "RUN"), waiting("tail", "--run", "RUN")),
    "serve": (Case("waiting", at("live", "serve", "RUN"), 0.2, "ctrl-C ends it", alone=True),),
    "watch": (busy("watch", "RUN"), waiting("watch", "RUN")),
    "diagnose": (busy("diagnose", "RUN"),),
    "sentinels show": (),
    "sentinels check": (),
    "export": (
        *(busy("export", "--run", "RUN", "--out", f"t{suffix}") for suffix in FORMATS),
        busy("export", "--run", "RUN", "--out", "t.parquet", "--long", then=0.6),
        Case("waiting", lambda w: ("export", "--run", ABROAD.format(port=w.silent), "--out", "t.csv"), 0.5),
    ),
    "query": (
        busy("query", CROSS, "--run", "RUN", "--out", "t.csv", then=1.5)._replace(alone=True),
        Case("waiting", lambda w: ("query", "SELECT 1 FROM metrics", "--run", ABROAD.format(port=w.silent)), 0.5),
    ),
    "compact": (busy("compact", "--run", "RUN", then=0.8),),
    "import": tuple(Case("busy", lambda w: ("import", str(w.log), "--as", "log"), then) for then in (0.3, 1.2)),
    "compare": (busy("compare", "RUN", "RUN"),),
    "fix list": (waiting("fix", "list", "--run", "RUN"),),
    "fix set": (waiting("fix", "set", "fp32-lm-head", "on", "--wait", "--run", "RUN"),),
    "fix align": (waiting("fix", "align", "--yes", "--run", "RUN"),),
    "correction list": (waiting("correction", "list", "--run", "RUN"),),
    "correction set": (
        waiting("correction", "set", "tis", "--despite-parity", "--run", "RUN"),
        Case("asked", at("live", "correction", "set", "tis", "--run", "RUN"), 0.2, "[y/N]", terminal=True),
    ),
    "sync": (waiting("sync", "--run", "RUN"), held("sync")),
    "pause": (waiting("pause", "--run", "RUN"), held("pause")),
    "resume": (waiting("resume", "--run", "RUN"),),
    "reset-cache": (waiting("reset-cache", "--run", "RUN"),),
    "digest": (waiting("digest", "--run", "RUN"),),
    "stop": (waiting("stop", "--run", "RUN"), held("stop")),
    "shadow show": (waiting("shadow", "show", "--run", "RUN"),),
    "shadow set": (waiting("shadow", "set", ".25", "--wait", "--run", "RUN"),),
    "bridge": (
        Case(
            "waiting", lambda w: ("bridge", f"http://127.0.0.1:{w.silent}", "--run", str(w.live.path)), 0.5, alone=True
        ),
    ),
    "env list": (),
    "env add": (Case("busy", lambda w: ("env", "add", "vllm-0.18.1"), 0.5, alone=True),),
    "env remove": (),
    "migrate": (),
    "doctor": (waiting("doctor", "RUN"),),
    "keys new": (),
    "keys list": (),
    "keys revoke": (),
    "config show": (),
    "config path": (),
    "config check": (),
    "config keys": (),
    "completion": (),
}
"""By verb, beside the imports of each, what it can be at for long. `run`, `demo`, `parity` and `migrate` end a trainer
and engines first: `tests/e2e/test_interrupt.py` has the first three."""
SHORT = (
    ("export", 0),
    ("export", 2),
    ("query", 0),
    ("evidence", 1),
    ("import", 0),
    ("correction set", 1),
)
NEEDED = {"run": ("c.toml",), "attach": (), "sentinels check": ("c.toml",), "export": ("--out", "t.csv"),
          "query": ("SELECT",), "import": ("x.csv", "--as", "x"), "follow": ("x",), "compare": ("a", "b"),
          "fix set": ("a", "on"), "shadow set": ("off",), "env add": ("a",), "env remove": ("a",),
          "migrate": ("a", "b"), "correction set": ("off",), "keys new": ("a",), "keys revoke": ("a",),
          "completion": ("bash",)}  # fmt: skip
"""Arguments without which a verb's own module is not imported."""


def leaves(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[str]:
    """The verbs that the parser knows, with those below `fix`, `keys` and the like."""
    groups = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    if not groups:
        yield " ".join(words)
    for group in groups:
        for name, below in group.choices.items():
            yield from leaves(below, (*words, name))


def test_every_verb_of_the_command_line_is_in_the_matrix() -> None:
    assert set(leaves(build())) == set(CASES)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    ended = metrics_run(folder / "ended", STEPS)
    make_run_keys(ended)
    log = folder / "log.jsonl"
    with log.open("w") as file:
        for step in range(STEPS):
            file.write(json.dumps({"step": step, "reward": 0.5, "kl": 1e-3, "loss": step / 7}) + "\n")
    hubs = [Hub(folder / name) for name in ("frozen", "live")]
    probes: list[Probe] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        try:
            for hub in hubs:
                hub.start()
                probes.append(Probe("trainer", hub.run))
                probes[-1].send(RunState(hub.run.id, "running", 1, 9, 0, 1.0))
                assert probes[-1].flush(PATIENCE)
            hubs[0].freeze()
            yield World(ended, hubs[0].run, hubs[1].run, log, silent.getsockname()[1])
        finally:
            hubs[0].thaw()
            for probe in probes:
                probe.close(0.1)
            for hub in hubs:
                hub.end()


def copied(world: World, folder: Path) -> World:
    """The world with an ended run of the test's own: its files are links, what is written into it is not shared."""
    own = folder / "copy" / world.ended.id
    shutil.copytree(world.ended.path, own, copy_function=os.link)
    return world._replace(ended=RunDir(own))


def check(
    folder: Path,
    numbers: tuple[int, ...],
    phase: Phase,
    words: Sequence[tuple[str, ...]],
    *,
    then: float,
    until: str,
    terminal: bool,
) -> list[float]:
    """Stop a verb there by each signal, side by side; it ends in time, with its code, in silence, and leaves no file.

    `words` are those for each signal. Each has a folder of its own, with its runs in it; returns the seconds of each.
    """
    with contextlib.ExitStack() as ends:
        verbs = []
        for number, own in zip(numbers, words, strict=True):
            place = folder / signal.Signals(number).name
            (place / "out").mkdir(parents=True)
            verb = Verb(place / "out", place / "runs", phase, *own, terminal=terminal)
            ends.callback(verb.close)
            verbs.append((verb, number))
        took = []
        for (verb, number), (code, seconds) in zip(verbs, stopped(verbs, then, until), strict=True):
            assert code == 128 + number, verb.said
            assert seconds < LIMIT, verb.said
            assert "Traceback" not in verb.said
            left = folder / signal.Signals(number).name / "out"
            assert list(left.iterdir()) == [], "what was asked for, or a part of it"
            took.append(seconds)
        return took


def id_of(case: tuple[str, int, tuple[int, ...]]) -> str:
    return "-".join([case[0], CASES[case[0]][case[1]].phase, str(case[1]), *(signal.Signals(n).name for n in case[2])])


MATRIX = [(name, at, SIGNALS) for name, cases in CASES.items() for at in range(len(cases))]
CHOSEN = MATRIX if FULL else [(*one, SIGNALS[at % 3 : at % 3 + 1]) for at, one in enumerate(SHORT)]


@pytest.mark.parametrize("case", CHOSEN, ids=map(id_of, CHOSEN))
def test_a_verb_at_work_ends(world: World, tmp_path: Path, case: tuple[str, int, tuple[int, ...]]) -> None:
    name, place, numbers = case
    phase, words, then, until, terminal, alone = CASES[name][place]
    worlds = [copied(world, tmp_path / str(number)) if name == "compact" else world for number in numbers]
    own = [words(one) for one in worlds]
    together = [slice(at, at + 1) for at in range(len(numbers))] if alone else [slice(None)]
    took = [
        seconds
        for part in together
        for seconds in check(tmp_path, numbers[part], phase, own[part], then=then, until=until, terminal=terminal)
    ]
    for number, seconds in zip(numbers, took, strict=True):
        print(f"f29 {name:16} {phase:9} {signal.Signals(number).name:7} ended after {seconds:.2f} s")
    if name == "import":
        assert list(tmp_path.glob("*/runs/*")) == [], "half a run"
    hidden = [path for root in (tmp_path, world.ended.path) for path in root.rglob(".*") if path.is_file()]
    if name == "env add":  # what pip has printed stays to be read, and a lock is never removed while one may hold it
        hidden = [path for path in hidden if path.suffix not in (".log", ".lock")]
    assert hidden == []


IMPORTING = [(name, SIGNALS) for name in CASES]


@pytest.mark.parametrize(
    ("name", "numbers"), IMPORTING if FULL else [("export", (signal.SIGINT,)), ("hub", (signal.SIGTERM,))], ids=str
)
def test_a_verb_in_its_imports_ends(tmp_path: Path, name: str, numbers: tuple[int, ...]) -> None:
    words = [(*name.split(), *NEEDED.get(name, ()))] * len(numbers)
    took = check(tmp_path, numbers, "importing", words, then=0.1, until="", terminal=False)
    for number, seconds in zip(numbers, took, strict=True):
        print(f"f29 {name:16} importing {signal.Signals(number).name:7} ended after {seconds:.2f} s")
    assert list(tmp_path.glob("*/runs")) == [], "something was started"
