"""The facts for `driftline doctor`, gathered without changing anything."""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import locale
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
import zmq

from console.doctor.checks import DiskFact, GateFact, JournalFact, PathFact, RayFact, ServerFact, TerminalFact
from driftline.journal.holes import holes, odd_names
from driftline.keys import new_pair
from driftline.rundir import Connection, RunDir
from driftline.sockets import Context, Monitor, Socket, configure, dial, secure_client

_GATE_SECONDS: Final = 3.0
_HTTP_SECONDS: Final = 1.0
_MAX_PORTS: Final = 64
_ANY: Final = frozenset({"0.0.0.0", "::", ""})


def paths(run: RunDir) -> Iterator[PathFact]:
    """The run's folders, keys and connection file, those that exist."""
    wanted = [(run.path, "folder"), (run.keys, "folder"), (run.connection_file, "secret")]
    wanted += [(path, "secret") for path in sorted(run.keys.glob("*.key"))]
    wanted += [(run.keys / "authorized", "table"), (run.audit, "table")]
    for path, kind in wanted:
        with contextlib.suppress(OSError):
            found = path.stat()
            yield PathFact(str(path), found.st_mode & 0o777, found.st_uid, kind)


def journal(run: RunDir) -> JournalFact:
    """What is missing in the journal, and what does not belong there."""
    try:
        missing = holes(run)
    except OSError as error:
        return JournalFact(str(run.journal), (), (), str(error.strerror or error))
    return JournalFact(str(run.journal), tuple(missing), tuple(odd_names(run.journal)))


def disk(path: Path) -> DiskFact:
    """Free bytes and kind of the filesystem of `path`, or of its nearest existing parent."""
    while not path.exists() and path != path.parent:
        path = path.parent
    # The mount point that is the longest prefix of the path.
    mounts = [part for part in psutil.disk_partitions(all=True) if path.is_relative_to(part.mountpoint)]
    kind = max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""
    return DiskFact(str(path), shutil.disk_usage(path).free, kind)


def gates(connection: Connection) -> Iterator[GateFact]:
    """Try a newly made key on every socket of a live hub."""
    endpoints = (("ingest", connection.ingest, zmq.DEALER), ("live", connection.live, zmq.SUB))
    for name, endpoint, kind in (*endpoints, ("rpc", connection.rpc, zmq.DEALER)):
        if endpoint:  # not every one is forwarded from another machine
            yield GateFact(endpoint, name, _answer(endpoint, kind, connection.server))


def _answer(endpoint: str, kind: int, server: str) -> str:
    context: Context = zmq.Context()
    try:
        socket: Socket = context.socket(kind)
        configure(socket, max_message=1024, send_frames=1, receive_frames=1)
        secure_client(socket, server, new_pair())
        monitor = Monitor(socket)
        dial(socket, endpoint)
        deadline = time.monotonic() + _GATE_SECONDS
        while time.monotonic() < deadline:
            monitor.update()
            if monitor.refused:
                return "refused"
            if monitor.succeeded:
                return "accepted"
            time.sleep(0.005)
        return "silent"
    except zmq.ZMQError:
        return "silent"
    finally:
        context.destroy(linger=0)


def ray_nodes() -> list[RayFact]:
    """Ray's node processes on this machine."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() != "raylet" or process.status() == psutil.STATUS_ZOMBIE:
                continue
            try:
                mode: str | None = process.environ().get("RAY_AUTH_MODE", "").lower()
            except psutil.AccessDenied:
                mode = None
            found.append(RayFact(process.pid, mode))
        except psutil.Error:
            continue  # it has ended meanwhile
    return found


def ray_version() -> tuple[int, ...] | None:
    """Ray's version, without importing it; None if it is not installed."""
    try:
        parts = importlib.metadata.version("ray").split(".")[:2]
    except importlib.metadata.PackageNotFoundError:
        return None
    return tuple(int(part) for part in parts if part.isdigit())


def vllm_servers() -> list[ServerFact]:
    """HTTP servers of vLLM on this machine, among listening ports. Sends only GETs, of pages that change nothing."""
    found: list[ServerFact] = []
    tried = 0
    for process in psutil.process_iter():
        try:
            if "vllm" not in " ".join(process.cmdline()).lower():
                continue
            listening = [c.laddr for c in process.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN]
        except psutil.Error:
            continue  # ended, or another user's: a scan of all ports would not find more
        for address, port in sorted(set(listening)):
            tried += 1
            if tried > _MAX_PORTS:
                return found
            fact = vllm_server(process.pid, address, port)
            if fact is not None:
                found.append(fact)
    return found


def vllm_server(pid: int, address: str, port: int) -> ServerFact | None:
    """The server on a listening port; None if it is not one of vLLM."""
    host = "127.0.0.1" if address in _ANY else address
    status, body = _get(host, port, "/version")
    if status != 200 or b'"version"' not in body:
        return None
    status, body = _get(host, port, "/is_paused")
    return ServerFact(pid, address or "0.0.0.0", port, control=status == 200 and b"is_paused" in body)


def _get(host: str, port: int, page: str) -> tuple[int, bytes]:
    """Status and first bytes of a page; 0 if the port does not answer by HTTP."""
    connection = http.client.HTTPConnection(host, port, timeout=_HTTP_SECONDS)
    try:
        connection.request("GET", page)
        response = connection.getresponse()
        return response.status, response.read(4096)
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def terminal() -> TerminalFact | None:
    """The terminal on stdout, None if there is none."""
    if not sys.stdout.isatty():
        return None
    size = os.get_terminal_size(sys.stdout.fileno())
    term = os.environ.get("TERM", "")
    return TerminalFact(
        size.columns,
        size.lines,
        term,
        _colours(term),
        utf8="utf" in locale.getpreferredencoding(False).lower(),
        tmux="TMUX" in os.environ,
        no_color=bool(os.environ.get("NO_COLOR")),
    )


def _colours(term: str) -> int:
    import curses

    if os.environ.get("COLORTERM", "") in ("truecolor", "24bit"):
        return 2**24
    try:
        curses.setupterm(term)
    except curses.error:
        return 0
    return max(curses.tigetnum("colors"), 0)
