"""The audit log: an unbroken chain, whatever a crash tore off, and everything a hub must remember in it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.audit import INTENT, RESULT, AuditError, AuditLog, Entry, entries, former, verify
from driftline.client import Client, RefusedError, attach
from driftline.frames import Command
from driftline.hub.effects import Now
from driftline.hub.refusals import REPEAT_SECONDS, Refusals
from driftline.keys import load, new_pair
from driftline.producer.probe import Probe
from tests.unit.hubs import PATIENCE, Hub, until


def fill(path: Path, count: int) -> None:
    log = AuditLog(path)
    for number in range(count):
        log.append(Entry("refused.role", float(number), "viewer local", text=f"number {number}\nof many"))
    log.close()


def test_lines_follow_each_other_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    for round_ in range(1, 4):
        fill(path, 5)
        verdict = verify(path)
        assert (verdict.lines, verdict.error, verdict.torn) == (5 * round_, "", 0)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [line.n for line in entries(path)] == list(range(1, 16))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_change_of_a_line_goes_unseen(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("audit") / "audit.log"
    fill(path, 6)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    match data.draw(st.sampled_from(["flip", "remove", "swap", "repeat"])):
        case "flip":
            # Not the last line: its digest is in no line yet.
            at = data.draw(st.integers(0, len(whole) - len(lines[-1]) - 1))
            broken = bytearray(whole)
            broken[at] ^= 1 << data.draw(st.integers(0, 7))
            path.write_bytes(broken)
        case "remove":
            del lines[data.draw(st.integers(0, 4))]
            path.write_bytes(b"".join(lines))
        case "swap":
            at = data.draw(st.integers(0, 4))
            lines[at], lines[at + 1] = lines[at + 1], lines[at]
            path.write_bytes(b"".join(lines))
        case "repeat":
            at = data.draw(st.integers(0, 5))
            lines.insert(at, lines[at])
            path.write_bytes(b"".join(lines))
    assert verify(path).error
    log = AuditLog(path)
    assert log.damage
    log.append(Entry("hub.started", 1.0))
    log.close()
    assert verify(path).error, "going on does not heal the chain"


def test_a_torn_end_is_moved_aside_at_every_byte(tmp_path: Path) -> None:
    whole_path = tmp_path / "whole"
    fill(whole_path, 3)
    whole = whole_path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in range(ends[1], len(whole) + 1):
        path = tmp_path / f"{cut}.log"
        path.write_bytes(whole[:cut])
        fill(path, 1)
        kept = 3 if cut == len(whole) else 2
        verdict = verify(path)
        assert (verdict.lines, verdict.error) == (kept + 1, "")
        side = path.with_name(f"{path.name}.torn")
        assert (side.read_bytes() if side.exists() else b"") == whole[ends[kept - 1] : cut]


def test_a_command_has_one_intent_and_one_result(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    for _ in range(2):
        log = AuditLog(path)
        for _ in range(3):
            log.append(Entry(RESULT, 1.0, command="unheard"))
            log.append(Entry(INTENT, 1.0, command="c1"))
        assert log.open == {"c1"}
        log.close()
    log = AuditLog(path)
    for _ in range(3):
        log.append(Entry(RESULT, 1.0, command="c1"))
    assert log.open == set()
    log.close()
    assert [line.kind for line in entries(path)] == [INTENT, RESULT]


def test_a_file_that_cannot_be_had_is_one_clause(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"nowhere/audit\.log: No such file"):
        AuditLog(tmp_path / "nowhere" / "audit.log")
    with pytest.raises(AuditError, match="No such file"):
        verify(tmp_path / "audit.log")


def test_ten_thousand_refusals_are_two_lines_with_the_exact_count() -> None:
    refusals = Refusals()
    notes = []
    for number in range(10_000):
        notes += refusals.count("role", "viewer local", "no", Now(1.0, 1.0 + number / 1e6))
    assert [note.entry.data["count"] for note in notes] == [1]
    notes += refusals.due_notes(Now(2.0, 2.0))
    notes += refusals.due_notes(Now(20.0, 2.0 + REPEAT_SECONDS))
    assert [note.entry.data["count"] for note in notes] == [1, 9999]
    for number in range(5000):
        refusals.count("role", f"viewer {number}", "no", Now(30.0, 30.0))
    assert len(refusals._recorded_at) <= 1026, "who is refused cannot fill the memory either"


def test_a_hub_remembers_orders_ends_refusals_and_key_changes(hub: Hub) -> None:
    audit, authorized = hub.run.audit, hub.run.keys / "authorized"

    def of(kind: str) -> list[str]:
        return [line.who for line in entries(audit) if line.kind == kind]

    with (
        Probe("trainer", hub.run) as probe,
        Client(*attach(hub.run, "operator")) as client,
        Client(*attach(hub.run, "viewer")) as viewer,
        Client(hub.run.connection(), new_pair()) as stranger,
    ):
        until(lambda: probe.connected, "the trainer")
        number = client.command("mark", {"text": "here"}, timeout=60)
        last = entries(audit)[-1]
        assert (last.kind, last.command, last.who, last.text) == (INTENT, number, "operator local", "mark"), (
            "the intent is there before anybody hears of the command"
        )
        assert last.data["args.text"] == "here"
        probe.commands.get(timeout=PATIENCE)
        for state in ("accepted", "applied", "applied"):
            probe.ack(number, state)  # type: ignore[arg-type]
        client.wait(number, PATIENCE)
        with pytest.raises(RefusedError):
            viewer.command("stop")
        with pytest.raises(RefusedError):
            client.command("fix.set", {"fix": "nonsense", "value": "on"})
        with pytest.raises(RefusedError):
            stranger.ping()
        short = client.command("pause", timeout=1.0)
        assert client.wait(short, PATIENCE).state == "expired"
        alice = new_pair()
        before = authorized.read_text()
        authorized.write_text(f"{before}viewer alice {alice.public}\n")
        until(lambda: of("key.added") == ["viewer alice"], "the new key in the audit log")
        authorized.write_text(before)
        until(lambda: of("key.removed") == ["viewer alice"], "the lost key in the audit log")
    assert hub.stop() == 0
    lines = entries(audit)
    assert [line.text for line in lines if line.kind == RESULT] == [
        "applied",
        "expired: handed over, not accepted before the deadline",
    ]
    assert of("refused.role") == ["viewer local"]
    assert of("refused.unfit") == ["operator local"]
    assert "unknown" in of("refused.key")
    assert verify(audit).error == ""
    text = audit.read_text()
    for path in hub.run.keys.glob("*.key"):
        assert load(hub.run, path.stem).secret not in text
    assert alice.secret not in text


def test_the_audit_log_is_whole_after_kills(hub: Hub) -> None:
    """Whenever the hub dies, afterwards every intent has exactly one result and the chain holds."""
    probe: Probe

    def apply(command: Command) -> None:
        probe.ack(command.id, "applied")

    probe = Probe("trainer", hub.run, on_command=apply)
    sent = []
    try:
        with Client(*attach(hub.run, "operator")) as client:
            for round_ in range(4):
                sent += [client.command("mark", {"text": f"{round_}"}, timeout=60) for _ in range(4)]
                time.sleep(0.005 * round_)
                hub.kill()
                hub.start()
            assert {client.wait(number, PATIENCE).state for number in sent} == {"applied"}
    finally:
        probe.close(0.1)
    assert hub.stop() == 0
    lines = entries(hub.run.audit)
    assert [line.command for line in lines if line.kind == INTENT] == sent
    assert sorted(line.command for line in lines if line.kind == RESULT) == sorted(sent)
    assert [line.text for line in lines if line.kind == "hub.started"] == [f"epoch {n}" for n in range(1, 6)]
    assert verify(hub.run.audit).error == ""
    assert not re.search("secret", hub.run.audit.read_text())


def test_a_file_that_is_full_is_followed_by_another_and_the_newest_entries_stay(tmp_path: Path) -> None:
    """The chain goes on over the files, over a restart, and over those that were dropped; a hole in it shows."""
    path, limit, count = tmp_path / "audit.log", 4096, 0
    for _ in range(3):
        log = AuditLog(path, limit=limit)
        assert log.damage == ""
        for _ in range(100):
            count += 1
            log.append(Entry("k", float(count), text="x" * 40))
        log.close()
    sizes = [one.stat().st_size for one in (path, former(path))]
    assert max(sizes) < limit + 512
    assert {one.name for one in tmp_path.iterdir()} == {path.name, former(path).name}
    assert verify(path).error == ""
    kept = [int(line.time) for line in entries(path) if line.kind == "k"]
    assert kept == list(range(kept[0], count + 1)), "the newest, none missing"
    assert sum(sizes) > limit
    lines = former(path).read_bytes().splitlines(keepends=True)
    former(path).write_bytes(b"".join(lines[1:]))
    assert "does not follow" in verify(path).error, "only a file that says so begins in the middle"
    former(path).write_bytes(b"".join(lines[:-1]))
    assert "does not follow" in verify(path).error
    former(path).unlink()
    assert verify(path).error == ""


def test_an_intent_in_the_file_before_still_gets_its_result(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditLog(path, limit=4096)
    log.append(Entry(INTENT, 1.0, command="c1"))
    while not former(path).exists():
        log.append(Entry("k", 1.0, text="x" * 40))
    log.close()
    log = AuditLog(path, limit=4096)
    assert log.open == {"c1"}
    log.append(Entry(RESULT, 2.0, command="c1"))
    log.close()
    assert [line.kind for line in entries(path) if line.command] == [INTENT, RESULT]
