"""Rights that change while a run goes on, and the words that change them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from console.cli.main import main
from console.errors import FAILED, OK
from driftline import wire
from driftline.client import Client, Feed, RefusedError, attach
from driftline.frames import Metrics, Tokens
from driftline.hub.live_socket import may_subscribe
from driftline.keys import Grant, add, load, load_file, make_run_keys, new_pair, read_authorized, revoke
from driftline.producer.probe import Probe
from driftline.rundir import RunDir, RunError
from tests.unit.hubs import PATIENCE, Hub, until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    run = RunDir(tmp_path / "r")
    run.journal.mkdir(parents=True)
    make_run_keys(run)
    monkeypatch.setenv("DRIFTLINE_RUN", str(run.path))
    return run


def known(hub: Hub, who: str) -> bool:
    """Whether the hub lets a key in; on a connection of its own, because libzmq gives up on one that was refused."""
    try:
        with Client(hub.run.connection(), load(hub.run, who)) as client:
            return client.ping() > 0
    except RefusedError:
        return False


def test_a_key_that_is_granted_after_it_was_refused_is_let_in_by_itself(hub: Hub) -> None:
    key = add(hub.run, "late", "viewer", "late")
    pair = load_file(key)
    revoke(hub.run, "late")
    connection = hub.run.connection()
    authorized = hub.run.keys / "authorized"
    with Feed(connection, pair) as feed, Client(connection, pair) as client:
        until(lambda: "does not know this key" in feed.status.error, "the refusal")
        with pytest.raises(RefusedError):
            client.ping()
        with authorized.open("a") as file:
            file.write(f"viewer late {pair.public}\n")
        until(lambda: feed.status.connected, "the feed to be let in")
        until(lambda: answered(client), "the client to be let in")


def answered(client: Client) -> bool:
    try:
        return client.ping() > 0
    except RefusedError:
        return False


def test_a_revoked_key_loses_its_live_stream_and_the_others_lose_nothing(hub: Hub) -> None:
    add(hub.run, "alice", "viewer", "alice")
    probe = Probe("trainer", hub.run)
    connection = hub.run.connection()

    until(lambda: known(hub, "alice"), "the hub to know the new key, without a restart")
    mine = load(hub.run, "alice")
    seen: list[int] = []
    with Feed(connection, mine) as alice, Feed(*attach(hub.run, "viewer")) as other:
        try:
            until(lambda: alice.status.connected and other.status.connected, "both feeds")
            probe.emit({"a": 1.0}, step=0)
            assert probe.flush(PATIENCE)
            until(lambda: alice.status.received == 1, "the first frame")
            revoke(hub.run, "alice")
            for step in range(1, 300):
                probe.emit({"a": 1.0}, step=step)
                time.sleep(0.005)
            until(lambda: "does not know this key" in alice.status.error, "the revoked key to be cut off")
            heard = alice.status.received
            for step in range(300, 400):
                probe.emit({"a": 1.0}, step=step)
            assert probe.flush(PATIENCE)

            def all_there() -> bool:
                seen.extend(s.seq for s in other.drain())
                return len(seen) >= 400

            until(all_there, "the other feed")
            # The refusal of the revoked key is an event among them.
            assert seen == list(range(1, len(seen) + 1)), "the others miss nothing and get nothing twice"
            assert heard < 300, "the revoked key heard nothing of what came after"
            assert alice.status.received == heard
        finally:
            probe.close(0.1)
    assert hub.run.connection().live == connection.live


def test_raw_tokens_only_for_who_may(hub: Hub) -> None:
    add(hub.run, "guest", "viewer", "guest", tokens=False)
    probe = Probe("trainer", hub.run)
    keys = load(hub.run, "guest")
    arrays = {k: np.arange(8) for k in ("ids", "seq", "position", "token_version", "rollout", "trainer")}
    connection = hub.run.connection()
    try:
        until(lambda: known(hub, "guest"), "the hub to know the new key")
        with Client(connection, keys) as client:
            with pytest.raises(RefusedError, match="this key may not read raw tokens"):
                client.page(1)
            with Feed(connection, keys) as plain, Feed(connection, keys, tokens=True) as greedy:
                until(lambda: plain.status.connected and greedy.status.connected, "the feeds")
                for step in range(5):
                    probe.tokens(step=step, version=1, **arrays)
                    probe.emit({"a": 1.0}, step=step)
                assert probe.flush(PATIENCE)
                until(lambda: plain.status.received == 10, "the metrics")
                assert [type(s.frame()) for s in plain.drain()] == [Metrics] * 5
                until(lambda: "raw tokens" in greedy.status.error, "the greedy one to be refused")
                assert not [s for s in greedy.drain() if isinstance(s.frame(), Tokens)]
    finally:
        probe.close(0.1)


def test_the_table_of_topics() -> None:
    rows = {
        None: [],
        Grant("producer", "p", "p"): [],
        Grant("viewer", "v", "v"): [b"", b"beacon", b"metrics", b"tokens"],
        Grant("operator", "o", "o"): [b"", b"beacon", b"metrics", b"tokens"],
        Grant("operator", "o", "o", tokens=False): [b"beacon", b"metrics"],
    }
    asked = [b"", b"beacon", b"metrics", b"tokens", b"t", b"tok", b"tokens2", b"x" * 900]
    for grant, allowed in rows.items():
        assert [topic for topic in asked if may_subscribe(grant, topic)] == allowed
    assert wire.BEACON == b"beacon"


def test_keys_are_made_listed_and_revoked(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new", "alice", "--role", "operator", "--no-tokens"]) == OK
    path = run.keys / "alice.key"
    out = capsys.readouterr().out
    pair = load(run, "alice")
    assert out.startswith(f"{path}  operator alice, no raw tokens\n")
    assert pair.secret not in out
    assert path.stat().st_mode & 0o777 == 0o600
    assert (run.keys / "authorized").stat().st_mode & 0o777 == 0o600
    assert read_authorized(run.keys / "authorized")[pair.public] == Grant("operator", "alice", pair.public, False)

    assert main(["keys", "new", "node-7", "--role", "producer", "--produces", "engine-7*"]) == OK
    capsys.readouterr()
    assert main(["keys", "list"]) == OK
    table = capsys.readouterr().out
    assert [line.split()[:3] for line in table.splitlines()] == [
        ["trainer", "producer:trainer", "trainer"],
        ["engine", "producer:engine", "engine-*"],
        ["supervisor", "producer:supervisor", "supervisor"],
        ["viewer", "viewer", "local"],
        ["operator", "operator", "local"],
        ["alice", "operator", "alice"],
        ["node-7", "producer:engine", "engine-7*"],
    ]
    assert pair.secret not in table
    assert main(["keys", "list", "--json"]) == OK
    rows = json.loads(capsys.readouterr().out)
    alice = {"key": "alice", "role": "operator", "kinds": [], "name": "alice", "tokens": False, "public": pair.public}
    assert alice in rows

    assert main(["keys", "revoke", "alice"]) == OK
    assert main(["keys", "revoke", load(run, "viewer").public]) == OK
    assert capsys.readouterr().out.splitlines()[0] == f"revoked: operator alice  {pair.public}"
    assert not path.exists()
    assert (run.keys / "viewer.key").exists()
    grants = read_authorized(run.keys / "authorized")
    assert {grant.identity for grant in grants.values()} == {
        "producer trainer",
        "producer engine-*",
        "producer supervisor",
        "operator local",
        "producer engine-7*",
    }


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["new", "viewer"], "viewer.key: there is a key of that name already"),
        (["new", "../x"], "'../x' is not a key"),
        (["new", "a b"], "'a b' is not a key"),
        (["new", "x", "--role", "producer", "--produces", "a b"], "'a b' is not a name"),
        (["revoke", "absent"], "absent.key: the key cannot be read"),
        (["revoke", "server"], "key 'server' has no grant"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    run: RunDir, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    before = (run.keys / "authorized").read_bytes()
    assert main(["keys", *arguments]) == FAILED, "the run is there"
    printed = capsys.readouterr()
    assert text in printed.err
    assert (len(printed.err.splitlines()), printed.out) == (1, "")
    assert (run.keys / "authorized").read_bytes() == before


def test_a_broken_table_is_not_edited(run: RunDir) -> None:
    table = run.keys / "authorized"
    table.write_text("boss me\n")
    with pytest.raises(RunError, match="line 1"):
        add(run, "alice", "viewer", "alice")
    assert not (run.keys / "alice.key").exists()
    table.write_text(f"viewer v {new_pair().public}")  # an editor that writes no newline at the end
    add(run, "alice", "viewer", "alice")
    assert len(read_authorized(table)) == 2
