"""The hub proves at its start that it is closed, or does not run; and every socket has its limits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from driftline.frames import MAX_BODY
from driftline.hub import auth
from driftline.hub.auth import DOMAIN, Authenticator, AuthError, GrantTable, secure_server
from driftline.hub.server import Server
from driftline.keys import Keys, add, load, make_run_keys
from driftline.rundir import RunDir
from driftline.sockets import HANDSHAKE_MS, HEARTBEAT_MS, Context, Socket, configure
from driftline.wire import REQUEST_BYTES
from tests.unit.hubs import PATIENCE


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "r")
    run.journal.mkdir(parents=True, mode=0o700)
    make_run_keys(run)
    return run


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


def bound(context: Context, keys: Keys) -> tuple[Socket, str]:
    socket: Socket = context.socket(zmq.ROUTER)
    configure(socket, max_message=1024, send_frames=10, receive_frames=10)
    secure_server(socket, keys)
    return socket, f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"


def test_the_self_test_passes_on_a_closed_socket_and_leaves_no_way_in(run: RunDir, context: Context) -> None:
    keys, gate = load(run, "server"), Authenticator(context, GrantTable(run.keys / "authorized"))
    _, endpoint = bound(context, keys)
    gate.self_test([(endpoint, zmq.DEALER)], keys.public)
    assert gate._probe_key == ""
    assert gate.refused_addresses == []


def test_a_key_that_was_added_just_now_is_known_at_its_first_handshake(run: RunDir, context: Context) -> None:
    """Between two looks at the file a new key was refused, with a sentence about revoked keys."""
    keys, table = load(run, "server"), GrantTable(run.keys / "authorized")
    gate = Authenticator(context, table)
    _, endpoint = bound(context, keys)
    add(run, "guest", "viewer", "guest")
    added = load(run, "guest")
    assert gate._accepted(endpoint, zmq.DEALER, keys.public, added)
    (change,) = table.take_changes()
    assert change.new is not None
    assert change.new.identity == "viewer guest"
    assert table.take_changes() == []


def test_an_open_socket_is_found(run: RunDir, context: Context) -> None:
    """libzmq's "legacy mode": CURVE where no handler is, and no domain enforced, lets every key in."""
    keys, gate = load(run, "server"), Authenticator(context, GrantTable(run.keys / "authorized"))
    elsewhere: Context = zmq.Context()
    try:
        socket: Socket = elsewhere.socket(zmq.ROUTER)
        socket.curve_server = True
        socket.curve_secretkey = keys.secret.encode()
        socket.curve_publickey = keys.public.encode()
        endpoint = f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"
        with pytest.raises(AuthError, match="an unknown key was accepted in the self-test"):
            gate.self_test([(endpoint, zmq.DEALER)], keys.public)
        assert gate._probe_key == ""
    finally:
        elsewhere.destroy(linger=0)


def test_a_socket_that_lets_no_client_in_is_found(
    run: RunDir, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, gate = load(run, "server"), Authenticator(context, GrantTable(run.keys / "authorized"))
    _, endpoint = bound(context, keys)
    with monkeypatch.context() as patch:
        patch.setattr(gate, "_user", lambda request: "")
        with pytest.raises(AuthError, match="a granted key was refused in the self-test"):
            gate.self_test([(endpoint, zmq.DEALER)], keys.public)
    monkeypatch.setattr(auth, "_SELF_TEST_SECONDS", 0.3)
    monkeypatch.setattr(gate, "serve", lambda: None)
    with pytest.raises(AuthError, match="no answer to a handshake within 0 s"):
        gate.self_test([(endpoint, zmq.DEALER)], keys.public)


def test_a_hub_that_is_open_does_not_run(run: RunDir) -> None:
    """The whole process, with a gate that knows everybody: one sentence, exit code 1, no connection file."""
    code = (
        "import sys\n"
        "from driftline.hub.auth import Authenticator\n"
        "Authenticator._user = lambda self, request: 'anybody'\n"
        "from driftline.hub.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", code, str(run.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert "an unknown key was accepted in the self-test" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not run.connection_file.exists()
    assert not run.live()


def test_every_socket_of_a_hub_is_closed_and_limited(run: RunDir) -> None:
    server = Server(run)
    try:
        limits = {
            server._ingest: (MAX_BODY + 4096, 1000, 1000),
            server._rpc: (REQUEST_BYTES, 8, 256),
            server._live.socket: (1024, 256, 1000),
        }
        for socket, (size, send, receive) in limits.items():
            assert socket.getsockopt(zmq.ZAP_DOMAIN).rstrip(b"\0") == DOMAIN
            assert socket.getsockopt(zmq.MECHANISM) == zmq.CURVE
            assert socket.getsockopt(zmq.CURVE_SERVER) == 1
            assert socket.getsockopt(zmq.MAXMSGSIZE) == size
            assert (socket.sndhwm, socket.rcvhwm) == (send, receive)
            assert socket.getsockopt(zmq.HANDSHAKE_IVL) == HANDSHAKE_MS
            assert socket.getsockopt(zmq.HEARTBEAT_IVL) == HEARTBEAT_MS
            assert socket.linger == 0
            assert socket.getsockopt(zmq.LAST_ENDPOINT).startswith(b"tcp://127.0.0.1:")
        assert server._context.get(zmq.MAX_SOCKETS) == 8192
    finally:
        server.close()
