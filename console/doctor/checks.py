"""Verdicts on a run and this machine: facts in, findings out. Pure; `console.doctor.facts` gathers the facts.

A finding has an observation and, if it is a problem, what to do. `fail`: others can read or control the run, or it
cannot work. `warn`: an operator should know it.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from console.formatting import clock as clock_time
from driftline.journal.holes import Hole, hole_text, odd_text
from driftline.journal.lost import LOST
from driftline.text import spans

Verdict = Literal["ok", "warn", "fail"]

CLOCK_WARN: Final = 1.0
CLOCK_FAIL: Final = 10.0
"""Seconds: a command's deadline is 30 s of the sender's clock, checked on the hub's."""
ROOM_WARN: Final = 5 * 10**9
ROOM_FAIL: Final = 500 * 10**6
"""Bytes: raw tokens at 10^5 a second fill some 7 GB an hour (12 to 20 bytes each)."""
LIBZMQ: Final = (4, 3, 3)
"""First libzmq without CVE-2020-15166 (anyone could exhaust a CURVE server)."""
RAY_TOKEN_DEFAULT: Final = (2, 61)
"""First Ray that asks for a token by itself on every cluster."""
NETWORK_FILESYSTEMS: Final = frozenset(
    "nfs nfs4 cifs smb3 smbfs lustre gpfs beegfs ceph glusterfs afs 9p fuse.sshfs fuse.glusterfs pvfs2 wekafs".split()
)
MEMORY_FILESYSTEMS: Final = frozenset({"tmpfs", "ramfs"})
SMALLEST: Final = (60, 15)
COMFORTABLE: Final = (80, 24)


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: `text` is the observation, `todo` what to do about it."""

    check: str
    verdict: Verdict
    text: str
    todo: str = ""


@dataclass(frozen=True)
class PathFact:
    """A file or folder: permission bits and owner's number; `kind` is what it is for: "folder", "secret" or "table"."""

    path: str
    mode: int
    owner: int
    kind: str


@dataclass(frozen=True)
class JournalFact:
    """The journal's folder: segments missing in the middle, names that are no segment's, why it cannot be read ("")."""

    path: str
    holes: tuple[Hole, ...]
    odd: tuple[str, ...]
    error: str = ""


@dataclass(frozen=True)
class SupervisorFact:
    """The run's supervisor: its process, whether it lives, and a clause about a hub that has died of late, or ""."""

    pid: int
    alive: bool
    hub: str


@dataclass(frozen=True)
class DiskFact:
    """The disk of the run: bytes free for this user, and the kind of filesystem ("" if unknown)."""

    path: str
    free: int
    filesystem: str


@dataclass(frozen=True)
class ClockFact:
    """Seconds that the hub's clock is ahead of ours, give or take `error`."""

    ahead: float
    error: float


@dataclass(frozen=True)
class GateFact:
    """How an endpoint of the hub answered a key without a role: "refused", "accepted" or "silent"."""

    endpoint: str
    name: str
    answer: str


@dataclass(frozen=True)
class RayFact:
    """A Ray node process of this machine and its mode of authentication; None where its environment is hidden."""

    pid: int
    mode: str | None


@dataclass(frozen=True)
class ServerFact:
    """A vLLM HTTP server of this machine; `control` is True where its control endpoints answer without a key."""

    pid: int
    address: str
    port: int
    control: bool


@dataclass(frozen=True)
class JoinedFact:
    """Something that speaks to the hub under a name: how, as a clause, and since when (Unix time, 0: not known)."""

    name: str
    how: str
    phase: str
    since: float


@dataclass(frozen=True)
class TerminalFact:
    """The terminal: columns and rows, colours it says it has, whether it takes UTF-8."""

    columns: int
    rows: int
    term: str
    colours: int
    utf8: bool
    tmux: bool
    no_color: bool


def permissions(facts: Sequence[PathFact], me: int) -> list[Finding]:
    """Keys and connection file: secrets 0600 in folders 0700, all of one owner."""
    findings = []
    for fact in facts:
        allowed = 0o700 if fact.kind == "folder" else 0o600
        extra = fact.mode & 0o777 & ~allowed
        if extra:
            reader = "every user" if extra & 0o007 else "its group"
            verb = "change" if extra & 0o022 else "read"
            findings.append(
                Finding(
                    "keys",
                    "fail",
                    f"{fact.path} has mode {stat.S_IMODE(fact.mode):04o}: {reader} may {verb} it",
                    f"chmod {allowed:03o} {fact.path}"
                    + ("; then revoke what was readable: driftline keys revoke" if fact.kind == "secret" else ""),
                )
            )
        elif fact.owner != me and me != 0:
            findings.append(
                Finding("keys", "warn", f"{fact.path} belongs to user {fact.owner}, not to you", "ask its owner")
            )
    if not findings:
        secrets = sum(fact.kind == "secret" for fact in facts)
        findings.append(Finding("keys", "ok", f"{secrets} secret files at 0600, in folders at 0700"))
    return findings


def supervisor(fact: SupervisorFact) -> Finding:
    """The run has a supervisor, and its hub does not die all the time."""
    if not fact.alive:
        text = (
            f"the supervisor (process {fact.pid}) was killed: the run goes on, but nothing starts a hub again that dies"
        )
        return Finding("supervisor", "warn", text, "driftline stop ends the run in order")
    if fact.hub:
        return Finding("supervisor", "warn", f"hub: {fact.hub}", "the reasons are events hub.died: driftline tail")
    return Finding("supervisor", "ok", f"process {fact.pid} looks after the run")


def clock(fact: ClockFact) -> Finding:
    """A hub whose clock differs expires commands too early, or too late."""
    size = max(0.0, abs(fact.ahead) - fact.error)
    text = f"the hub's clock is {fact.ahead:+.3f} s from this machine's, give or take {fact.error:.3f} s"
    if size < CLOCK_WARN:
        return Finding("clock", "ok", text)
    todo = "set both clocks by NTP; deadlines of commands are Unix times"
    return Finding("clock", "fail" if size >= CLOCK_FAIL else "warn", text, todo)


def journal(fact: JournalFact) -> list[Finding]:
    """Every frame between the oldest and the newest is there, and nothing else is."""
    if fact.error:
        return [Finding("journal", "fail", f"{fact.path} cannot be read: {fact.error}", "look at its permissions")]
    todo = "put it back from a copy, then restart the hub; tables and screens of the run leave these frames out"
    findings = [Finding("journal", "fail", f"{fact.path}: {hole_text(hole)}", todo) for hole in fact.holes]
    if fact.odd:
        text = f"{fact.path}: {odd_text(list(fact.odd))}"
        findings.append(Finding("journal", "warn", text, "they are not read: move them elsewhere"))
    return findings or [Finding("journal", "ok", "no segment is missing in the middle")]


def disk(fact: DiskFact) -> list[Finding]:
    """Room for the journal, and a filesystem that stores it safely."""
    room = f"{fact.free / 1e9:.1f} GB free at {fact.path}"
    todo = "make room, or put runs elsewhere: DRIFTLINE_RUNS; a full disk stops recording, not the run"
    verdict: Verdict = "fail" if fact.free < ROOM_FAIL else "warn" if fact.free < ROOM_WARN else "ok"
    findings = [Finding("disk", verdict, room, "" if verdict == "ok" else todo)]
    kind = fact.filesystem
    if kind in NETWORK_FILESYSTEMS:
        text = f"{fact.path} is on a network filesystem ({kind}): each sync takes many times longer, locks may not hold"
        findings.append(Finding("filesystem", "warn", text, "put runs on a disk of the node: DRIFTLINE_RUNS"))
    elif kind in MEMORY_FILESYSTEMS:
        text = f"{fact.path} is in memory ({kind}): the journal is gone after a reboot"
        findings.append(Finding("filesystem", "warn", text, "put runs on a disk: DRIFTLINE_RUNS"))
    elif kind:
        findings.append(Finding("filesystem", "ok", f"{kind}, local"))
    else:
        findings.append(Finding("filesystem", "warn", f"the filesystem of {fact.path} is not known", "look: df -T"))
    return findings


def gates(facts: Sequence[GateFact]) -> list[Finding]:
    """The live hub must refuse a key without a role, on every socket."""
    findings = []
    for fact in facts:
        text = f"{fact.name} at {fact.endpoint}: an unknown key is {fact.answer}"
        if fact.answer == "refused":
            findings.append(Finding("gate", "ok", text))
        elif fact.answer == "accepted":
            findings.append(Finding("gate", "fail", text, "stop this hub: it accepts any key"))
        else:
            text = f"{fact.name} at {fact.endpoint}: no answer to an unknown key"
            findings.append(Finding("gate", "fail", text, "the hub hangs or is gone: driftline status"))
    return findings


def hub(degraded: str | None, crowded: str = "") -> Finding:
    """The hub's own error state: "" for none, None if no beacon came; `crowded`: who makes too many names."""
    if degraded is None:
        return Finding("hub", "fail", "the hub is silent", "see the run's logs/hub.log")
    if degraded and degraded.startswith(LOST):
        todo = "put the directory back, or make a new one in its place; producers hold their frames until then"
        return Finding("hub", "fail", degraded, todo)
    if degraded:
        return Finding("hub", "fail", f"the journal is degraded: {degraded}", "make room; producers hold their frames")
    if crowded:
        todo = "take steps, samples and hosts out of the names of metrics: each name costs every console memory"
        return Finding("hub", "warn", f"TOO MANY NAMES: {crowded}", todo)
    return Finding("hub", "ok", "answers, and records")


def joined(facts: Sequence[JoinedFact]) -> list[Finding]:
    """Who is joined and how; engines that have died stay listed, because their end may have gone unseen."""
    if not facts:
        todo = "an engine: DRIFTLINE_RUN in its environment; a trainer: driftline.Probe; see docs/joining.md"
        return [Finding("joined", "warn", "neither a trainer nor an engine has reported yet", todo)]
    alike: dict[tuple[str, str], list[JoinedFact]] = {}
    for fact in facts:
        alike.setdefault((fact.how, fact.phase), []).append(fact)
    return [_joined(group) for group in alike.values()]


def _joined(group: Sequence[JoinedFact]) -> Finding:
    """Those that are joined in the same way, in one finding."""
    first = group[0]
    times = sorted({clock_time(fact.since) for fact in group if fact.since})
    since = f", since {times[0]}{f' to {times[-1]}' if len(times) > 1 else ''}" if times else ""
    names = ", ".join(spans([fact.name for fact in group]))
    text = f"{names} ({first.phase}): {first.how or 'it does not say how'}{since}"
    if first.phase == "dead":
        return Finding("joined", "warn", text, "driftline status --engines has its last words")
    return Finding("joined", "ok", text)


def ray(facts: Sequence[RayFact], installed: tuple[int, ...] | None, here: str) -> list[Finding]:
    """A Ray cluster without a token runs any code as its owner. `here`: RAY_AUTH_MODE of this shell."""
    if installed is None:
        return [Finding("ray", "ok", "Ray is not installed here")]
    default = "token" if installed >= RAY_TOKEN_DEFAULT else "disabled"
    todo = "RAY_AUTH_MODE=token in the environment of driftline run; see: ray get-auth-token --generate"
    findings = []
    for fact in facts:
        if fact.mode is None:
            text = f"Ray node (process {fact.pid}): its environment cannot be read"
            findings.append(Finding("ray", "warn", text, f"ask its owner whether RAY_AUTH_MODE is token; {todo}"))
        elif (fact.mode or default) == "token":
            findings.append(Finding("ray", "ok", f"Ray node (process {fact.pid}) asks for a token"))
        else:
            node = f"Ray node (process {fact.pid})"
            text = f"{node} asks for no token: any process that reaches its ports can run code as its owner"
            findings.append(Finding("ray", "warn", text, todo))
    if not facts:
        mode = here or default
        version = ".".join(map(str, installed))
        text = f"no Ray node here; one started from this shell (Ray {version}) would be in mode '{mode}'"
        findings.append(Finding("ray", "ok", text) if mode == "token" else Finding("ray", "warn", text, todo))
    return findings


def servers(facts: Sequence[ServerFact]) -> list[Finding]:
    """vLLM's control endpoints need no key, even with --api-key: any host that reaches them controls the engines."""
    if not facts:
        return [Finding("vllm", "ok", "no vLLM HTTP server on this machine that can be seen from here")]
    findings = []
    for fact in facts:
        where = f"vLLM (process {fact.pid}) at {fact.address}:{fact.port}"
        loopback = fact.address in ("127.0.0.1", "::1") or fact.address.startswith("127.")
        if not fact.control:
            findings.append(Finding("vllm", "ok", f"{where}: no control endpoints"))
            continue
        text = f"{where}: pause, resume and weight updates without a key"
        todo = "unset VLLM_SERVER_DEV_MODE, or put it behind a deny-list; Driftline's engines need no HTTP"
        if loopback:
            findings.append(Finding("vllm", "warn", f"{text}, for every user of this machine", todo))
        else:
            findings.append(Finding("vllm", "fail", f"{text}, for every host that reaches this machine", todo))
    return findings


def library(version: tuple[int, ...], *, curve: bool) -> Finding:
    """libzmq with CURVE, and new enough."""
    text = f"libzmq {'.'.join(map(str, version))}, CURVE {'yes' if curve else 'no'}"
    if curve and version >= LIBZMQ:
        return Finding("libzmq", "ok", text)
    return Finding("libzmq", "fail", text, f"install pyzmq with libzmq {'.'.join(map(str, LIBZMQ))} or newer and CURVE")


def terminal(fact: TerminalFact | None) -> list[Finding]:
    """Whether the console can be shown here. None: no terminal."""
    if fact is None:
        return [Finding("terminal", "ok", "no terminal here; status, tail and export need none")]
    findings = []
    size = (fact.columns, fact.rows)
    if size[0] < SMALLEST[0] or size[1] < SMALLEST[1]:
        todo = f"the console needs {SMALLEST[0]}x{SMALLEST[1]}"
        findings.append(Finding("terminal", "fail", f"{fact.columns}x{fact.rows} cells", todo))
    elif size[0] < COMFORTABLE[0] or size[1] < COMFORTABLE[1]:
        todo = f"{COMFORTABLE[0]}x{COMFORTABLE[1]} shows everything"
        findings.append(Finding("terminal", "warn", f"{fact.columns}x{fact.rows} cells", todo))
    else:
        findings.append(Finding("terminal", "ok", f"{fact.columns}x{fact.rows} cells"))
    where = f"TERM={fact.term or '(unset)'}{' in tmux' if fact.tmux else ''}"
    if fact.term in ("", "dumb", "unknown"):
        findings.append(Finding("colours", "fail", where, "set TERM to what this terminal is"))
    elif fact.no_color:
        findings.append(Finding("colours", "ok", f"{where}, NO_COLOR: greys only"))
    elif fact.colours >= 256:
        findings.append(Finding("colours", "ok", f"{where}, {fact.colours} colours or more"))
    else:
        todo = "in ~/.tmux.conf: set -g default-terminal tmux-256color" if fact.tmux else "try TERM=xterm-256color"
        findings.append(Finding("colours", "warn", f"{where}, {fact.colours} colours", todo))
    if fact.utf8:
        findings.append(Finding("utf-8", "ok", "the locale is UTF-8"))
    else:
        findings.append(Finding("utf-8", "warn", "the locale is not UTF-8", "LANG=C.UTF-8, or --marker ascii"))
    return findings


def worst(findings: Sequence[Finding]) -> Verdict:
    """The worst verdict of all."""
    for verdict in ("fail", "warn"):
        if any(finding.verdict == verdict for finding in findings):
            return verdict
    return "ok"


def document(run: str | None, findings: Sequence[Finding]) -> dict[str, Any]:
    """For programs: {`run` (null: none was checked), `verdict`, `checks` [{`check`, `verdict`, `text`, `todo`}]}."""
    return {"run": run, "verdict": worst(findings), "checks": [asdict(finding) for finding in findings]}
