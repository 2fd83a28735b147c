"""The log of a run: what is an entry, what is reported again, what belongs to what; and the filter over it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

from console.store.filter_grammar import FilterError
from console.store.log import EVENT_DELAY_SECONDS, Entry, RunLog
from console.store.model import RunModel
from console.tui.screens.events.filter import EVENTS, parse
from console.tui.screens.events.view import Rows
from driftline.frames import Ack, Command, Event, Frame, Lease, Stamped, encode
from tests.tui.sync_runs import sync
from tests.tui.synthetic import START, engines, fix_state, history, metrics, run_state


def model(frames: Iterable[Frame], every: float = 0.01) -> RunModel:
    made = RunModel()
    for seq, frame in enumerate(frames, 1):
        made.apply(Stamped(seq, START + seq * every, "trainer", msgspec.Raw(encode(frame))))
    return made


def texts(frames: Iterable[Frame], every: float = 0.01) -> list[str]:
    return [f"{entry.kind}: {entry.text}" for entry in model(frames, every).log.entries]


def test_a_command_is_logged_with_who_and_with_all_that_became_of_it():
    command = Command("c1", "fix.set", {"fix": "processed-logprobs", "value": "on"}, 3, 0.0, "operator ana")
    acks = [Ack("c1", "accepted", START), Ack("c1", "failed", START + 1, "engine-1 refused")]
    made = model([command, *acks])
    assert [(entry.kind, entry.level) for entry in made.log.entries] == [
        ("command", "info"), ("command.accepted", "info"), ("command.failed", "error"),
    ]  # fmt: skip
    assert made.log.entries[0].text == "fix.set processed-logprobs on, by operator ana"
    assert made.log.entries[2].text == "fix.set processed-logprobs on: failed, engine-1 refused"
    assert {entry.ref for entry in made.log.entries} == {"command:c1"}


def test_only_changes_of_states_are_entries():
    first = fix_state("processed-logprobs", "off", ("off", "off"))
    wanted = fix_state("processed-logprobs", "on", ("off", "off"), version=9)
    half = fix_state("processed-logprobs", "on", ("on", "off"), version=9, step=18)
    assert texts([first, first, wanted, wanted, half, half]) == [
        "fix.wanted: processed-logprobs: off to on wanted, by operator ana",
        "fix.reported: processed-logprobs: engine-0 on since v9",
    ]


def test_engines_and_the_run_are_logged_when_they_come_and_go_and_not_when_they_sync():
    one = engines(1)[0]
    phases = ["starting", "running", "syncing", "running", "dead", "dead", "restarting", "running"]
    frames = [msgspec.structs.replace(one, phase=phase) for phase in phases]
    kinds = [entry.kind for entry in model(frames).log.entries]
    assert kinds == ["engine.starting", "engine.running", "engine.dead", "engine.restarting", "engine.running"]
    kinds = [entry.kind for entry in model([run_state(1), run_state(2), run_state(3, "paused")]).log.entries]
    assert kinds == ["run.is-running", "run.is-paused"]


def test_who_holds_the_controls_is_logged_when_it_changes_and_not_when_it_is_prolonged():
    ana = Lease("operator ana", "ana@a:1", START, START + 10)
    frames = [ana, msgspec.structs.replace(ana, until=START + 20), Lease("operator bo", "bo@b:2", START + 5), Lease()]
    assert [text.split(":")[0] for text in texts(frames)] == ["writer.held", "writer.held", "writer.free"]


def test_a_sync_with_an_event_is_one_entry_and_leads_to_its_spans():
    made = model(sync(4))
    (entry,) = made.log.entries
    assert (entry.kind, entry.ref, entry.routine) == ("sync.done", "sync:sync-4", True)
    assert made.syncs.find("sync-4") is not None


def test_a_sync_without_an_event_is_logged_by_its_spans():
    late = [*sync(4, reported=False), *[engines(1)[0]] * 5]
    assert (
        len(texts(late, every=EVENT_DELAY_SECONDS / 100)) == 1
    )  # the engine's first report; the sync's event may come yet
    assert "sync.done: v4 on 2 engines in" in texts(late, every=EVENT_DELAY_SECONDS)[0]
    bad = [*sync(5, reported=False, failed="digest differs"), *sync(6, reported=False)]
    assert texts(bad)[0] == "sync.failed: engine-1 stays at v4: digest differs"


def test_the_log_is_bounded_and_numbers_go_on():
    log = RunLog(kept=10)
    for seq in range(1, 31):
        event = Event(START, "info", "mark", f"{seq}")
        log.apply(Stamped(seq, START, "trainer", msgspec.Raw(encode(event))), event, 0)
    assert (log.count, log.first, [entry.number for entry in log.entries]) == (30, 21, list(range(21, 31)))


# -- the filter


def entry(**changes: object) -> Entry:
    made = Entry(1, 7, START, "engine-0", "warn", "sync.failed", "v9: engine-1: digest Differs", 40)
    return msgspec.structs.replace(made, **changes)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("", True),
        ("level>=warn", True),
        ("level=error", False),
        ("level>=error", False),
        ("level<error", True),
        ("level!=warn", False),
        ("kind=sync", True),
        ("kind=sync.failed", True),
        ("kind=syn", False),
        ("-kind=sync", False),
        ("kind!=fix", True),
        ("producer=engine-0", True),
        ("producer=ENGINE-0", True),
        ("producer=engine", False),
        ("step>=40", True),
        ("step>40", False),
        ("digest", True),
        ("DIGEST engine-1", True),
        ('"digest differs"', True),
        ('"differs digest"', False),
        ("-digest", False),
        ("-made-up", True),
        ('"differs', True),
        ("a > b", False),
        ('producer="engine-0" -level<warn', True),
        ("level>=warn kind=sync producer=engine-0 differs", True),
    ],
)
def test_filters(text: str, passes: bool):
    assert parse(text)(entry()) is passes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lvl=warn", "unknown field 'lvl'; one of: level, kind, producer, step"),
        ("level>=bad", "level: compared with one of info, warn, error, not with 'bad'"),
        ("step=x", "step: compared with a whole number, not with 'x'"),
        ("step=²", "step: compared with a whole number"),
        ("kind>sync", "kind: a comparison must follow, one of = !="),
        ("kind=", "kind=: a word must follow"),
    ],
)
def test_what_is_no_filter_is_said_in_a_sentence(text: str, says: str):
    assert says in EVENTS.complaint(text)
    with pytest.raises(FilterError):
        parse(text)


# -- rows


def test_routine_syncs_that_follow_one_another_are_one_row_and_grow():
    made = model([frame for number in range(1, 6) for frame in sync(number)])
    rows = Rows(parse(""), folded=True)
    assert rows.read_log(made.log)
    assert [len(row.entries) for row in rows.rows] == [5]
    assert not rows.read_log(made.log)
    flat = Rows(parse(""), folded=False)
    flat.read_log(made.log)
    assert len(flat.rows) == flat.matches == rows.matches == 5
    assert flat.entries() == rows.entries()


def test_rows_forget_with_the_log_and_start_anew_with_another_one():
    log = RunLog(kept=20)
    rows = Rows(parse("-skip"), folded=True)
    seq = 0

    def tell(text: str, **data: str) -> None:
        nonlocal seq
        seq += 1
        event = Event(START, "info", "sync.done" if data else "mark", text, data=dict(data))
        log.apply(Stamped(seq, START, "trainer", msgspec.Raw(encode(event))), event, 0)

    for turn in range(200):
        tell("skip" if turn % 5 == 0 else "a mark")
        tell("v1 done", by="trainer", sync=f"s{turn}")
        if turn % 3 == 0:
            rows.read_log(log)
        expected = [one for one in log.entries if "skip" not in one.text]
        if turn % 3 == 0:
            assert rows.entries() == expected
            assert rows.matches == len(expected)
    rows.read_log(RunLog())
    assert rows.rows == []


def test_the_log_takes_a_history_as_it_is():
    made = model([*history(30), metrics(31)])
    assert made.log.count == len(made.log.entries) > 4
