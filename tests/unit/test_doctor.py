"""The doctor's verdicts, each way, and its looks at a real hub, real files and real ports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import zmq

from console.doctor import checks as doctor
from console.doctor import facts as probes
from console.doctor.checks import (
    ClockFact,
    DiskFact,
    Finding,
    GateFact,
    JoinedFact,
    PathFact,
    RayFact,
    ServerFact,
    TerminalFact,
)
from driftline.keys import add, new_pair, revoke
from driftline.rundir import Connection
from tests.unit.hubs import Hub, until


def verdicts(findings: list[Finding]) -> list[str]:
    for finding in findings:
        assert (finding.verdict == "ok") == (not finding.todo), "what is not well says what to do, the rest does not"
    return [finding.verdict for finding in findings]


@pytest.mark.parametrize(
    ("mode", "kind", "said"),
    [
        (0o600, "secret", ""),
        (0o400, "secret", ""),
        (0o700, "folder", ""),
        (0o640, "secret", "its group may read it"),
        (0o604, "secret", "every user may read it"),
        (0o622, "table", "every user may change it"),
        (0o755, "folder", "every user may read it"),
        (0o770, "folder", "its group may change it"),
    ],
)
def test_modes(mode: int, kind: str, said: str) -> None:
    [finding] = doctor.permissions([PathFact("/r/x", mode, 7, kind)], 7)
    verdicts([finding])
    assert (finding.verdict, said in finding.text) == ("fail" if said else "ok", True)
    assert ("revoke" in finding.todo) == (bool(said) and kind == "secret")


def test_owners() -> None:
    fact = PathFact("/r/x", 0o600, 7, "secret")
    assert verdicts(doctor.permissions([fact], 8)) == ["warn"]
    assert verdicts(doctor.permissions([fact], 0)) == ["ok"], "root looks at everybody's"


@pytest.mark.parametrize(
    ("ahead", "error", "verdict"),
    [(0.0, 0.1, "ok"), (1.05, 0.1, "ok"), (-1.5, 0.1, "warn"), (9.0, 0.0, "warn"), (-11.0, 0.5, "fail")],
)
def test_clocks(ahead: float, error: float, verdict: str) -> None:
    assert verdicts([doctor.clock(ClockFact(ahead, error))]) == [verdict]


@pytest.mark.parametrize(
    ("free", "kind", "expected"),
    [
        (10**11, "ext4", ["ok", "ok"]),
        (10**9, "xfs", ["warn", "ok"]),
        (10**6, "nfs4", ["fail", "warn"]),
        (10**11, "fuse.sshfs", ["ok", "warn"]),
        (10**11, "tmpfs", ["ok", "warn"]),
        (10**11, "", ["ok", "warn"]),
    ],
)
def test_disks(free: int, kind: str, expected: list[str]) -> None:
    assert verdicts(doctor.disk(DiskFact("/r", free, kind))) == expected


def test_gates_and_hubs() -> None:
    answers = [GateFact("tcp://x", "rpc", answer) for answer in ("refused", "accepted", "silent")]
    assert verdicts(doctor.gates(answers)) == ["ok", "fail", "fail"]
    assert verdicts([doctor.hub(""), doctor.hub("No space left"), doctor.hub(None)]) == ["ok", "fail", "fail"]


@pytest.mark.parametrize(
    ("facts", "installed", "here", "expected"),
    [
        ([], None, "", ["ok"]),
        ([], (2, 60), "", ["warn"]),
        ([], (2, 60), "token", ["ok"]),
        ([], (2, 61), "", ["ok"]),
        ([], (2, 61), "disabled", ["warn"]),
        ([RayFact(1, "token"), RayFact(2, ""), RayFact(3, None)], (2, 60), "token", ["ok", "warn", "warn"]),
    ],
)
def test_ray(facts: list[RayFact], installed: tuple[int, ...] | None, here: str, expected: list[str]) -> None:
    assert verdicts(doctor.ray(facts, installed, here)) == expected


def test_servers() -> None:
    facts = [
        ServerFact(1, "127.0.0.1", 8000, control=False),
        ServerFact(1, "127.0.0.1", 8000, control=True),
        ServerFact(1, "::1", 8000, control=True),
        ServerFact(1, "0.0.0.0", 8000, control=True),
    ]
    assert verdicts(doctor.servers(facts)) == ["ok", "warn", "warn", "fail"]
    assert verdicts(doctor.servers([])) == ["ok"]


def test_who_is_joined_and_how() -> None:
    plugin = "plugin in verl 0.6.0, key engine-*, cuda vLLM 0.32.0"
    facts = [JoinedFact("trainer", "adapter in TRL 1.2.0", "running", 0.0)]
    facts += [JoinedFact(f"engine-{number}", plugin, "running", 1.0) for number in (0, 1, 2, 10)]
    facts += [JoinedFact("engine-3", plugin, "dead", 1.0), JoinedFact("engine-4", "", "running", 0.0)]
    found = doctor.joined(facts)
    assert verdicts(found) == ["ok", "ok", "warn", "ok"]
    assert found[0].text == "trainer (running): adapter in TRL 1.2.0"
    assert found[1].text.startswith(f"engine-0 to engine-2, engine-10 (running): {plugin}, since ")
    assert found[3].text == "engine-4 (running): it does not say how"
    (none,) = doctor.joined([])
    assert none.verdict == "warn"


def test_libraries() -> None:
    found = [doctor.library((4, 3, 5), curve=True), doctor.library((4, 3, 2), curve=True)]
    assert verdicts([*found, doctor.library((4, 3, 5), curve=False)]) == ["ok", "fail", "fail"]


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        (None, ["ok"]),
        (TerminalFact(80, 24, "xterm-256color", 256, True, False, False), ["ok", "ok", "ok"]),
        (TerminalFact(70, 24, "screen", 8, False, True, False), ["warn", "warn", "warn"]),
        (TerminalFact(50, 24, "dumb", 0, True, False, False), ["fail", "fail", "ok"]),
        (TerminalFact(80, 24, "vt220", 0, True, False, True), ["ok", "ok", "ok"]),
    ],
)
def test_terminals(fact: TerminalFact | None, expected: list[str]) -> None:
    assert verdicts(doctor.terminal(fact)) == expected


# The looks


def test_a_live_hub_refuses_on_every_socket_and_a_hung_one_is_silent(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(probes.gates(hub.run.connection()))
    assert [(fact.name, fact.answer) for fact in found] == [
        ("ingest", "refused"),
        ("live", "refused"),
        ("rpc", "refused"),
    ]
    monkeypatch.setattr(probes, "_GATE_SECONDS", 0.3)
    hub.freeze()
    try:
        assert {fact.answer for fact in probes.gates(hub.run.connection())} == {"silent"}
    finally:
        hub.thaw()


def test_a_socket_without_a_doorkeeper_is_found_open() -> None:
    """What libzmq does by default: CURVE without a ZAP handler accepts every key."""
    keys = new_pair()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        socket = context.socket(zmq.ROUTER)
        socket.curve_server = True
        socket.curve_secretkey, socket.curve_publickey = keys.secret.encode(), keys.public.encode()
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        open_door = Connection(
            run="r", ingest="", live="", rpc=f"tcp://127.0.0.1:{port}", server=keys.public, pid=1, started=0.0
        )
        assert [fact.answer for fact in probes.gates(open_door)] == ["accepted"]
    finally:
        context.destroy(linger=0)


def test_where_a_path_lies(tmp_path: Path) -> None:
    here, below = probes.disk(tmp_path), probes.disk(tmp_path / "not" / "there")
    assert here.filesystem
    assert (below.path, below.filesystem) == (str(tmp_path), here.filesystem)
    assert 0 < here.free < 2**60


_SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Pages(BaseHTTPRequestHandler):
    def do_GET(self):
        pages = {"/version": b'{"version":"0.0"}'}
        if "dev" in sys.argv:
            pages["/is_paused"] = b'{"is_paused":false}'
        self.send_response(200 if self.path in pages else 404)
        self.end_headers()
        self.wfile.write(pages.get(self.path, b""))
    def log_message(self, *_): pass
server = HTTPServer(("127.0.0.1", 0), Pages)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.mark.parametrize("control", [True, False])
def test_an_http_server_is_found_by_its_port(control: bool) -> None:
    """Pages with the names of vLLM's, served by a few lines: the look is under test, not vLLM."""
    command = [sys.executable, "-c", _SERVER, "vllm-lookalike", "dev" if control else "plain"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        [fact] = [fact for fact in probes.vllm_servers() if fact.pid == process.pid]
        assert (fact.address, fact.port, fact.control) == ("127.0.0.1", port, control)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def listener() -> Iterator[tuple[int, list[str]]]:
    """A server that writes down what it was asked."""
    asked: list[str] = []

    class Pages(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            line = self.rfile.readline(4096)
            asked.append(line.decode().strip())
            self.wfile.write(b'HTTP/1.0 200 OK\r\n\r\n{"version": "1", "is_paused": false}')

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port, asked
    server.shutdown()
    server.server_close()


def test_nothing_but_two_gets_is_sent(listener: tuple[int, list[str]]) -> None:
    port, asked = listener
    assert probes.vllm_server(1, "0.0.0.0", port) == ServerFact(1, "0.0.0.0", port, control=True)
    assert asked == ["GET /version HTTP/1.1", "GET /is_paused HTTP/1.1"]
    assert probes.vllm_server(1, "127.0.0.1", 1) is None


# The verb


def examine(hub: Hub, *args: str) -> tuple[int, dict[str, object], str]:
    done = subprocess.run(
        [sys.executable, "-m", "console.cli", "doctor", str(hub.run.path), "--json", *args],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"RAY_AUTH_MODE": "token"},
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def failed(document: dict[str, object]) -> list[str]:
    checks = document["checks"]
    assert isinstance(checks, list)
    return [f"{check['check']}: {check['text']}" for check in checks if check["verdict"] == "fail"]


@pytest.mark.slow
def test_a_good_run_a_loose_key_and_a_revoked_one(hub: Hub, tmp_path: Path) -> None:
    code, document, error = examine(hub)
    assert (code, error, failed(document)) == (0, "", [])
    checks = document["checks"]
    assert isinstance(checks, list)
    assert {
        "keys",
        "gate",
        "hub",
        "joined",
        "clock",
        "disk",
        "filesystem",
        "journal",
        "libzmq",
        "ray",
        "vllm",
        "terminal",
        "run",
    } == {check["check"] for check in checks}
    assert document["run"] == hub.run.id

    (hub.run.keys / "operator.key").chmod(0o644)
    code, document, _ = examine(hub)
    [only] = failed(document)
    assert (code, document["verdict"]) == (1, "fail")
    assert "operator.key has mode 0644: every user may read it" in only
    (hub.run.keys / "operator.key").chmod(0o600)

    brought = tmp_path / "bob.key"
    brought.write_bytes(add(hub.run, "bob", "viewer", "bob").read_bytes())
    brought.chmod(0o600)
    until(lambda: examine(hub, "--key", str(brought))[0] == 0, "the hub to read the grant")
    revoke(hub.run, "bob")
    until(lambda: examine(hub, "--key", str(brought))[0] == 1, "the hub to read that it is revoked")
    _, document, _ = examine(hub, "--key", str(brought))
    assert any("does not know this key: it was revoked" in text for text in failed(document))


def test_no_such_run_is_not_an_illness(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "console.cli", "doctor", str(tmp_path / "ghost")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (3, "")
    assert "no run" in done.stderr
