"""What every kind of key may send: the whole table, over a real hub and real sockets; and whose a name is."""

from __future__ import annotations

import re
import time
from collections import Counter

import msgspec
import pytest

from driftline import audit, wire
from driftline.client import Client, RefusedError, attach
from driftline.frames import (
    TOPIC,
    Ack,
    Command,
    Effect,
    EngineState,
    Event,
    FixState,
    Frame,
    Lease,
    Metrics,
    RunState,
    Span,
    Tokens,
    Verb,
)
from driftline.hub import coverage
from driftline.journal.journal import read
from driftline.keys import (
    KINDS,
    Grant,
    Keys,
    Kind,
    add,
    load_file,
    make_run_keys,
    new_pair,
    producer_keys,
    revoke,
)
from driftline.producer.probe import Probe
from driftline.rundir import RunDir, RunError
from tests.unit.hubs import PATIENCE, Hub, until

pytestmark = pytest.mark.timeout(120)

KEYS: dict[str, tuple[str, tuple[Kind, ...]]] = {
    "trainer": ("trainer", ("trainer",)),
    "supervisor": ("supervisor", ("supervisor",)),
    "engine": ("engine-0", ("engine",)),
    "metrics": ("logger", ("metrics",)),
    "second": ("trainer-b", ("trainer",)),
    "both": ("engine-9", ("engine", "metrics")),
}
"""Name and kinds of a key of each kind; `second` is a trainer's that is not the run's, `both` one of two kinds."""
EVERY = set(KEYS)

T = 1.0
SENT: dict[str, tuple[Frame, set[str]]] = {
    "the run's state": (RunState("r", "running", 1, 2, 3, T), {"trainer", "supervisor"}),
    "a fix": (FixState("f", "on", 1, "by", T, "live", ()), {"trainer"}),
    "an effect": (Effect("x", (("f", "off", "on"),), 1, 1, T), {"trainer"}),
    "an ack": (Ack("c1", "applied", T), {"trainer"}),
    "its own state": (EngineState("", "running", 1, T), {"trainer", "engine", "second", "both"}),
    "another engine's state": (EngineState("engine-7", "running", 1, T), {"trainer", "second"}),
    "a span of its own": (Span("s", "", "load", T, 1.0, 1, 2, 3), {"trainer", "engine", "second", "both"}),
    "a span of another": (Span("s", "engine-7", "load", T, 1.0, 1, 2, 3), {"trainer", "second"}),
    "numbers": (Metrics(1, 1, T, {"a": 1.0}), {"trainer", "metrics", "second", "both"}),
    "tokens": (Tokens(1, 1, T, 0, b"", b"", b"", b"", b"", b""), {"trainer", "metrics", "second", "both"}),
    "a free event": (Event(T, "info", "data.epoch", "t"), EVERY),
    "a fix's event": (Event(T, "info", "fix.applied", "fp32-lm-head on 1/1 by ceo"), {"trainer", "second"}),
    "a sync's event": (Event(T, "info", "sync.done", "v3"), {"trainer", "second"}),
    "an engine's end": (Event(T, "error", "engine.died", "engine-7 died"), {"trainer", "second"}),
    "the run's end": (Event(T, "error", "run.died", "t"), {"trainer", "second", "supervisor"}),
    "the hub's end": (Event(T, "warn", "hub.died", "t"), {"supervisor"}),
    "a refusal": (Event(T, "warn", "hub.refused", "t"), set()),
    "drops": (Event(T, "warn", "probe.dropped", "t", data={"producer": "trainer", "total": 1}), set()),
    "a takeover": (Event(T, "warn", "writer.taken", "t"), set()),
    "a lost journal": (Event(T, "error", "journal.lost", "t"), set()),
    "a command": (Command("c2", "stop"), set()),
    "a lease": (Lease("operator ceo", "s", T, T), set()),
}
"""Everything that can be sent, and the keys that cover it."""

VERBS: tuple[Verb, ...] = ("fix.set", "sync", "pause", "resume", "stop", "mark", "correction.set")


def granted(hub: Hub) -> dict[str, Keys]:
    pairs = {}
    for key, (name, kinds) in KEYS.items():
        pairs[key] = load_file(add(hub.run, f"key-{key}", "producer", name, kinds=kinds))
    return pairs


def reported(hub: Hub, kind: str) -> list[Event]:
    frames = (stamped.frame() for stamped in read(hub.run.journal) if stamped.producer == "hub")
    return [frame for frame in frames if isinstance(frame, Event) and frame.kind == kind]


def refused(hub: Hub, kind: str) -> int:
    return sum(int(line.data["count"]) for line in audit.entries(hub.run.audit) if line.kind == f"refused.{kind}")


def test_every_frame_is_of_a_row_and_every_kind_of_key_of_a_column() -> None:
    assert {type(frame) for frame, _ in SENT.values()} == set(TOPIC)
    assert {kind for _, kinds in KEYS.values() for kind in kinds} == set(KINDS)


def test_every_kind_of_key_by_every_kind_of_frame(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    pairs = granted(hub)
    with Client(*attach(hub.run, "operator")) as operator:
        operator._ask(
            wire.CommandReply,
            lambda n: wire.CommandRequest(n, Command("c1", "mark", {"text": "x"}, -1, time.time() + 60)),
        )
        for key, (name, _) in KEYS.items():
            # One after another, as no two have one name: each sends the whole table.
            with Probe(name, hub.run, keys=pairs[key]) as probe:
                for frame, _ in SENT.values():
                    probe.send(named(frame, name))
                    probe.send(named(frame, name))
                assert probe.flush(PATIENCE), key
    hub.stop()
    found = Counter(
        (stamped.producer, repr(without_key(stamped.frame())))
        for stamped in read(hub.run.journal)
        if stamped.producer in names()
    )
    wrong = []
    for what, (frame, allowed) in SENT.items():
        for key, (name, _) in KEYS.items():
            count = found[name, repr(named(frame, name))]
            if count != (2 if key in allowed else 0):
                wrong.append(f"{what} of {key}: {count} times in the journal")
    assert not wrong
    short = sum(len(KEYS) - len(allowed) for _, allowed in SENT.values())
    assert refused(hub, "frame") == 2 * short, "every single one is counted"
    pairs = [(event.data["producer"], event.data["frame"]) for event in reported(hub, coverage.REFUSED)]
    wanted = {
        (name, type(frame).__name__)
        for frame, allowed in SENT.values()
        for key, (name, _) in KEYS.items()
        if key not in allowed
    }
    assert (set(pairs), len(pairs)) == (wanted, len(wanted)), "each kind of frame of each producer once"
    said = [record.getMessage() for record in caplog.records]
    assert any("'logger': the hub" in line and "RunState is for trainer or supervisor" in line for line in said)


def named(frame: Frame, producer: str) -> Frame:
    """The frame, of the producer itself where it leaves that open."""
    if isinstance(frame, EngineState | Span) and not frame.engine:
        values = {field: getattr(frame, field) for field in frame.__struct_fields__}
        return type(frame)(**values | {"engine": producer})
    return frame


def without_key(frame: Frame) -> Frame:
    """The frame as it was sent: the hub writes into an engine's state whose key it came with."""
    return msgspec.structs.replace(frame, key="") if isinstance(frame, EngineState) else frame


def names() -> set[str]:
    return {name for name, _ in KEYS.values()}


def test_no_producers_key_asks_or_commands_and_no_other_key_produces(hub: Hub) -> None:
    pairs = granted(hub)
    connection = hub.run.connection()
    for key, pair in pairs.items():
        with Client(connection, pair) as client:
            asks = [
                Client.ping,
                Client.snapshot,
                lambda c: c.page(1),
                *(lambda c, v=verb: c.command(v, {}) for verb in VERBS),
            ]
            for ask in asks:
                with pytest.raises(RefusedError, match="may not watch: role producer"):
                    ask(client)
            with pytest.raises(RefusedError, match="may not watch"):
                client._ask(wire.LeaseReply, lambda number: wire.LeaseRequest(number, "s", "take"))
            assert key in KEYS
    for who in ("viewer", "operator"):
        with Probe("trainer", hub.run, keys=who) as liar:
            liar.emit({"forged": 1.0}, step=1)
            until(lambda: refused(hub, "role") > 0, "the refusal")
    hub.stop()
    assert not [s for s in read(hub.run.journal) if s.producer != "hub"]


@pytest.mark.parametrize(
    ("name", "kinds", "producer", "allowed"),
    [
        ("*", ("engine",), "engine-3", True),
        ("*", ("engine",), "trainer", False),
        ("*", ("metrics",), "supervisor", False),
        ("*", ("trainer",), "trainer", True),
        ("*", ("trainer", "supervisor", "engine", "metrics"), "hub", False),
        ("hub", ("supervisor",), "hub", False),
        ("engine-3", ("engine",), "engine-30", False),
        ("trainer", (), "trainer", True),
        ("supervisor", (), "supervisor", True),
        ("logger-*", (), "logger-1", True),
    ],
)
def test_the_names_of_a_key(name: str, kinds: tuple[Kind, ...], producer: str, allowed: bool) -> None:
    assert Grant("producer", name, "k", kinds=kinds).may_produce(producer) is allowed


def test_keys_of_before_have_the_kinds_that_their_names_stand_for(hub: Hub) -> None:
    """A table as an older version wrote it, under a run that is started again: its trainer and engines go on."""
    hub.stop()
    table = hub.run.keys / "authorized"
    table.write_text(re.sub(r" kinds=\S+", "", table.read_text()))
    pair = new_pair()
    with table.open("a") as file:
        file.write(f"producer logger-* {pair.public}\n")
    hub.start()
    with (
        Probe("trainer", hub.run) as trainer,
        Probe("engine-0", hub.run, keys="engine") as engine,
        Probe("logger-1", hub.run, keys=pair) as logger,
    ):
        trainer.send(RunState("r", "running", 1, 2, 3, T))
        engine.send(EngineState("engine-0", "running", 1, T))
        logger.emit({"a": 1.0}, step=1)
        logger.send(RunState("forged", "running", 1, 2, 3, T))
        assert trainer.flush(PATIENCE)
        assert engine.flush(PATIENCE)
        assert logger.flush(PATIENCE)
    hub.stop()
    kinds = {(s.producer, type(s.frame())) for s in read(hub.run.journal) if s.producer != "hub"}
    assert kinds == {("trainer", RunState), ("engine-0", EngineState), ("logger-1", Metrics)}


def test_the_run_makes_a_key_for_each_engine_and_another_where_one_was_revoked(tmp_path) -> None:  # type: ignore[no-untyped-def]
    run = RunDir(tmp_path)
    make_run_keys(run)
    first = producer_keys(run, ["engine-0", "engine-1"], "engine")
    assert producer_keys(run, ["engine-0", "engine-1"], "engine") == first
    grant = revoke(run, "engine-0")
    assert (grant.name, grant.sends) == ("engine-0", ("engine",))
    second = producer_keys(run, ["engine-0", "engine-1"], "engine")
    assert second["engine-0"] != first["engine-0"]
    assert second["engine-1"] == first["engine-1"]
    revoke(run, "engine-1")
    add(run, "engine-1", "viewer", "eve")
    with pytest.raises(
        RunError, match="is not of engine 'engine-1' but of viewer eve; to go on: driftline keys revoke"
    ):
        producer_keys(run, ["engine-1"], "engine")


# Whose a name is


def greeted(probe: Probe) -> bool:
    return probe.connected


def test_a_second_key_takes_neither_the_name_nor_the_commands_of_the_first(hub: Hub) -> None:
    other = load_file(add(hub.run, "other", "producer", "trainer", kinds=("trainer",)))
    got: list[str] = []
    with (
        Probe("trainer", hub.run, on_command=lambda c: (got.append(c.id), first.ack(c.id, "applied"))[0]) as first,
        Client(*attach(hub.run, "operator")) as operator,
    ):
        until(lambda: greeted(first), "the first")
        second = Probe("trainer", hub.run, keys=other)
        second.emit({"forged": 1.0}, step=1)
        until(lambda: refused(hub, "name"), "the refusal of the second")
        number = operator.command("mark", {"text": "x"})
        until(lambda: number in got, "the command")
        assert second.commands.empty()
        assert not second.connected
        assert first.flush(PATIENCE)
        # The hub forgets who had the name, and the journal still knows the first: it goes before the other.
        hub.kill()
        hub.start()
        until(lambda: greeted(first), "the first, again")
        again = operator.command("mark", {"text": "y"})
        until(lambda: again in got, "the next command")
        assert second.commands.empty()
        revoke(hub.run, "trainer")
        until(lambda: second.connected, "the second, once the key of the first is revoked")
        assert second.flush(PATIENCE)
        second.close(0.1)
    (event,) = reported(hub, coverage.REFUSED)[:1]
    assert "the name 'trainer' is in use by another key (producer trainer)" in event.text


def test_two_engines_of_one_name_under_two_keys(hub: Hub) -> None:
    own = producer_keys(hub.run, ["engine-3"], "engine")["engine-3"]
    with Probe("engine-3", hub.run, keys=own) as first, Probe("trainer", hub.run) as trainer:
        until(lambda: greeted(first), "the first")
        with Probe("engine-3", hub.run, keys="engine") as second:
            second.send(EngineState("engine-3", "dead", 1, T))
            until(lambda: refused(hub, "name"), "the refusal")
            first.send(EngineState("engine-3", "running", 1, T))
            # Not even the trainer says how an engine is that says so itself.
            trainer.send(EngineState("engine-3", "dead", 1, T))
            trainer.send(EngineState("engine-4", "dead", 1, T))
            assert first.flush(PATIENCE)
            assert trainer.flush(PATIENCE)
    hub.stop()
    states = [f for s in read(hub.run.journal) if isinstance(f := s.frame(), EngineState)]
    assert {(state.engine, state.phase) for state in states} == {("engine-3", "running"), ("engine-4", "dead")}


def test_a_second_trainer_of_the_same_key_gets_the_commands_only_once_the_first_has_gone(hub: Hub) -> None:
    """Two processes of one script, and then one: which is how a trainer that was killed comes back."""
    with Client(*attach(hub.run, "operator")) as operator:
        first, second = Probe("trainer", hub.run), None
        try:
            until(lambda: greeted(first), "the first")
            second = Probe("trainer", hub.run)
            until(lambda: greeted(second), "the second")
            number = operator.command("mark", {"text": "x"})
            until(lambda: not first.commands.empty(), "the command at the first")
            second.ack(number, "applied", "forged")
            assert second.flush(PATIENCE)
            assert second.commands.empty()
            first.close(0.1)
            until(lambda: not second.commands.empty(), "the command at the second")
            assert second.commands.get().id == number
            second.ack(number, "applied", "done")
            assert second.flush(PATIENCE)
        finally:
            first.close(0.1)
            if second is not None:
                second.close(0.1)
    hub.stop()
    acks = [f for s in read(hub.run.journal) if isinstance(f := s.frame(), Ack) and s.producer == "trainer"]
    assert [ack.detail for ack in acks] == ["done"]
