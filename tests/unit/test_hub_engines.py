"""Producers that report fixes for themselves: one state over all of them, commands to all of them, names that collide.

They are recordings that a probe plays as the plugin would speak; engines are in tests/e2e/test_join.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from driftline import rundir
from driftline.client import Client, RefusedError, attach
from driftline.frames import Ack, EngineFix, EngineState, Event, FixState, Frame
from driftline.hub import engines
from driftline.hub.engines import JoinedEngines
from driftline.keys import load, make_run_keys
from driftline.producer.probe import Probe
from driftline.testing import Answer, Moment, RecordedEngine, Recording
from tests.unit.hubs import PATIENCE, Hub, until

FIX = "processed-logprobs"


def report(engine: str, value: str, how: str = "live", detail: str = "") -> FixState:
    """What the plugin sends of one fix."""
    return FixState(FIX, value, 0, "", time.time(), how, (EngineFix(engine, value, how, -1, -1, detail),))  # type: ignore[arg-type]  # a test's word


def recording(name: str, value: str = "off", refuses: str = "") -> Recording:
    """A producer that answers as an engine would: it takes a value, or refuses with a word."""
    asked = [("fix.set", {"fix": FIX, "value": one}) for one in ("on", "off")]
    answers = []
    for verb, args in (*asked, ("pause", dict[str, str]())):
        accepted, applied = Ack("", "accepted", 0.0), Ack("", "applied", 0.0, "", {"was": 1})
        states = [report(name, args["value"])] if args else []
        frames: tuple[Frame, ...] = (accepted, *states, applied)
        answers.append(Answer(verb, args, (accepted, Ack("", "refused", 0.0, refuses)) if refuses else frames))  # type: ignore[arg-type]  # a test's word
    return Recording(name, (Moment(0.0, report(name, value)),), tuple(answers))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def member(stack: ExitStack, hub: Hub, name: str, value: str = "off", refuses: str = "") -> RecordedEngine:
    return stack.enter_context(RecordedEngine(recording(name, value, refuses), hub.run))


def operator(stack: ExitStack, hub: Hub) -> Client:
    return stack.enter_context(Client(*attach(hub.run)))


def fix(client: Client) -> FixState:
    (state,) = [frame for one in client.snapshot().states if isinstance(frame := one.frame(), FixState)]
    return state


def said(client: Client) -> list[Frame]:
    return [one.frame() for one in client.page(1).frames]


def events(client: Client, kind: str) -> list[Event]:
    return [frame for frame in said(client) if isinstance(frame, Event) and frame.kind == kind]


def test_reports_of_single_engines_become_one_state_and_a_command_is_answered_once(hub: Hub, stack: ExitStack) -> None:
    members = [member(stack, hub, f"engine-{number}") for number in (2, 10)]
    client = operator(stack, hub)
    assert [(one.engine, one.effective) for one in fix(client).engines] == [("engine-2", "off"), ("engine-10", "off")]
    assert (fix(client).requested, fix(client).generation, fix(client).settled) == ("off", 0, True)
    ack = client.wait(client.command("fix.set", {"fix": FIX, "value": "on"}, generation=0), PATIENCE)
    assert (ack.state, ack.detail) == ("applied", "2 of 2 engines")
    assert ack.data["engine-10.was"] == 1
    assert [len(one.taken) for one in members] == [1, 1]
    until(lambda: fix(client).settled, "both reports")
    state = fix(client)
    assert (state.requested, state.effective, state.generation, state.by) == ("on", "on", 1, "operator local")
    terminal = [frame for frame in said(client) if isinstance(frame, Ack) and frame.state in ("applied", "failed")]
    assert len(terminal) == 1, "what one engine has done is progress, not the end"
    with pytest.raises(RefusedError, match="generation 1"):
        client.command("fix.set", {"fix": FIX, "value": "off"}, generation=0)


def test_what_one_engine_refuses_is_the_result_and_the_state_is_partial(hub: Hub, stack: ExitStack) -> None:
    member(stack, hub, "engine-0")
    member(stack, hub, "engine-1", refuses="it only reports here")
    client = operator(stack, hub)
    ack = client.wait(client.command("fix.set", {"fix": FIX, "value": "on"}), PATIENCE)
    assert (ack.state, ack.detail) == ("failed", "1 of 2 engines; engine-1: it only reports here")
    until(lambda: fix(client).effective == "mixed", "the partial state")
    assert fix(client).requested == "on"


def test_commands_and_states_outlive_the_hub(hub: Hub, stack: ExitStack) -> None:
    one = member(stack, hub, "engine-0")
    client = operator(stack, hub)
    assert client.wait(client.command("fix.set", {"fix": FIX, "value": "on"}), PATIENCE).state == "applied"
    hub.kill()
    hub.start()
    until(lambda: one.probe.connected, "the probe to find the hub again")
    assert (fix(client).requested, fix(client).effective) == ("on", "on")
    assert client.wait(client.command("pause", {}), PATIENCE).state == "applied"
    assert [command.verb for command in one.taken] == ["fix.set", "pause"]


def test_a_command_that_no_engine_can_take_expires_with_the_reason(hub: Hub, stack: ExitStack) -> None:
    one = member(stack, hub, "engine-0")
    client = operator(stack, hub)
    one.probe.close(1.0)
    hub.kill()
    hub.start()  # it does not know the old connection, and the engine does not come back
    ack = client.wait(client.command("pause", {}, timeout=1.0), PATIENCE)
    assert (ack.state, ack.detail) == ("expired", "no joined engine was connected")


def test_an_engine_that_ends_is_left_out_at_once_and_owes_no_answer(hub: Hub, stack: ExitStack) -> None:
    one = member(stack, hub, "engine-0")
    member(stack, hub, "engine-1")
    client = operator(stack, hub)
    one.probe.send(EngineState("engine-0", "dead", -1, time.time(), detail="shut down"))
    assert one.probe.flush(PATIENCE), "also its last frame is acknowledged"
    until(lambda: events(client, "engine.left"), "the event")
    assert [event.text for event in events(client, "engine.left")] == ["engine-0 has ended"]
    until(lambda: [one.engine for one in fix(client).engines] == ["engine-1"], "the state without it")
    assert client.wait(client.command("pause", {}), PATIENCE).data == {"engine-1.was": 1}
    assert not one.taken


def test_a_trainer_that_reports_fixes_owns_them(hub: Hub, stack: ExitStack) -> None:
    one = member(stack, hub, "engine-0")
    trainer = Probe("trainer", hub.run)
    stack.callback(trainer.close, 0.5)
    trainer.send(report("engine-0", "off"))
    assert trainer.flush(PATIENCE)
    client = operator(stack, hub)
    number = client.command("pause", {})
    until(lambda: not trainer.commands.empty(), "the trainer to get the command")
    assert trainer.commands.get().id == number
    assert not one.taken
    one.probe.send(report("engine-0", "on"))
    assert one.probe.flush(PATIENCE)
    assert fix(client).effective == "off", "the trainer's word stands"
    assert "the trainer answers for fixes" in events(client, "engine.left-out")[0].text


def test_whose_key_an_engine_came_with_is_the_hub_s_word(hub: Hub, stack: ExitStack) -> None:
    one = member(stack, hub, "engine-0")
    one.probe.send(EngineState("engine-0", "running", 1, time.time(), via="plugin", key="operator ana"))
    assert one.probe.flush(PATIENCE)
    (state,) = [frame for frame in said(operator(stack, hub)) if isinstance(frame, EngineState)]
    assert (state.via, state.key) == ("plugin", "producer engine-*")


def test_other_commands_are_the_trainers_as_ever(hub: Hub, stack: ExitStack) -> None:
    one = member(stack, hub, "engine-0")
    ack = (client := operator(stack, hub)).wait(client.command("sync", {}, timeout=1.0), PATIENCE)
    assert (ack.state, ack.detail) == ("expired", "the trainer was not connected")
    assert not one.taken


def test_two_engines_of_one_name(hub: Hub, stack: ExitStack) -> None:
    first = member(stack, hub, "engine-0")
    second = Probe("engine-0", hub.run, keys="engine")
    stack.callback(second.close, 0.5)
    client = operator(stack, hub)
    until(lambda: events(client, "engine.name-taken"), "the second one to be refused")
    (event,) = events(client, "engine.name-taken")
    assert "an engine 'engine-0' is there already; give each a name of its own" in event.text
    assert event.text in hub.log.read_text()
    assert not second.connected
    assert client.wait(client.command("pause", {}), PATIENCE).state == "applied"
    assert len(first.taken) == 1, "the first goes on untouched"
    first.probe.close(0.5)
    until(lambda: second.connected, "the name to be free")


def test_an_engine_that_comes_back_under_its_name_is_given_what_was_asked_for(hub: Hub, stack: ExitStack) -> None:
    first = member(stack, hub, "engine-0")
    client = operator(stack, hub)
    assert client.wait(client.command("fix.set", {"fix": FIX, "value": "on"}), PATIENCE).state == "applied"
    first.probe.close(1.0)
    again = member(stack, hub, "engine-0")
    until(lambda: events(client, "engine.back"), "the event")
    assert events(client, "engine.back")[0].text == "engine-0 is back under its name, as a new process"
    until(lambda: fix(client).settled, "the requested value, without being asked again")
    assert [(command.verb, command.issuer) for command in again.taken] == [("fix.set", "hub")]
    assert (fix(client).requested, fix(client).by) == ("on", "operator local")


def test_keys_of_another_run_and_other_schemas_leave_one_sentence(hub: Hub, stack: ExitStack, tmp_path: Path) -> None:
    other = rundir.create(tmp_path / "others", "other")
    make_run_keys(other)
    foreign = Probe("engine-0", hub.run, keys=load(other, "engine"))
    wrong = Probe("engine-0", hub.run, keys="trainer")
    for probe in (foreign, wrong):
        stack.callback(probe.close, 0.1)
    client = operator(stack, hub)
    until(lambda: len(events(client, "hub.refused")) == 2, "both refusals")
    texts = sorted(event.text for event in events(client, "hub.refused"))
    assert texts[0].startswith("a connection from 127.0.0.1")
    assert texts[0].endswith("its key is not one of this run's")
    assert texts[1] == "producer trainer was refused: key 'trainer' may not produce as 'engine-0'"
    log = hub.log.read_text()
    assert all(log.count(text) >= 1 for text in texts)


def test_an_engine_that_is_gone_is_left_out() -> None:
    joined = JoinedEngines("trainer")
    for name, value in (("engine-0", "on"), ("engine-1", "off"), ("engine-2", "on")):
        joined.remember(name, joined.merged(report(name, value)))
    assert joined.names == ["engine-0", "engine-1", "engine-2"]
    (left,) = joined.without("engine-1", 5.0)
    joined.remember("hub", left)
    assert joined.names == ["engine-0", "engine-2"]
    assert (left.requested, left.settled) == ("on", True), "what most engines have, as long as no operator asked"


def test_an_engine_that_went_without_a_word_is_dead_and_one_that_said_so_is_not_reported_again() -> None:
    joined = JoinedEngines("trainer")
    joined.remember("a", EngineState("a", "running", 3, 1.0, running=5, tokens_per_s=9.0))
    joined.remember("b", EngineState("a", "dead", 3, 1.0))
    last = joined.ended("a", "was not heard for 10 s", 7.0)
    assert last == EngineState("a", "dead", 3, 7.0, detail="was not heard for 10 s")
    assert joined.ended("b", "", 7.0) is None
    joined.remember("a", EngineState("a", "dead", 3, 8.0, detail="shut down"))
    assert joined.ended("a", "", 9.0) is None


def test_engines_that_differ_in_what_they_can_do_are_partial_with_the_reason() -> None:
    joined = JoinedEngines("trainer")
    joined.remember("a", joined.merged(report("a", "off")))
    state = joined.merged(report("b", "", "not_available", "its workers cannot be asked"))
    assert (state.how, state.effective, state.detail) == ("live", "", "b: its workers cannot be asked")


@pytest.mark.parametrize(
    ("heard", "verdicts"),
    [([], ["free"]), ([9.9], ["wait", "taken"]), ([5.0], ["free"])],
    ids=["it is free", "it is in use", "it was, some time ago"],
)
def test_who_may_have_a_name(heard: list[float], verdicts: list[str]) -> None:
    joined = JoinedEngines("trainer")
    turns = range(len(verdicts))
    assert [joined.contest("engine-0", [one + turn for one in heard], 10.0 + turn / 2) for turn in turns] == verdicts


def test_the_result_of_a_command_without_all_answers() -> None:
    done = engines.relayed("a", Ack("1", "applied", 1.0, "", {"x": 2}))
    assert engines.result({"a": done, "b": None}) == (
        "failed", "1 of 2 engines; b: did not answer before the deadline", {"a.x": 2},
    )  # fmt: skip


def test_a_probe_that_rests_sends_when_it_is_woken(hub: Hub) -> None:
    """As an engine's does, whose steps it must not disturb."""
    with Probe("engine-0", hub.run, keys="engine", tick=3600.0) as probe:
        until(lambda: probe.connected, "the hub's welcome, for which no long tick waits")
        for count in (1, 2):
            probe.event("test", "one")
            probe.wake()
            until(lambda: probe.stats.acked == count, "what waited to be sent")  # noqa: B023  it is waited for here
        probe.event("test", "the last one")
    assert probe.stats.acked == 3, "the end waits for no tick either"
