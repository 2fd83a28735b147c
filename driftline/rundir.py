"""The run directory and the connection file: where a run keeps its things, and how others find it.

`runs/<id>/` holds `config.toml` (as run), `connection.json` (0600: endpoints and the hub's public key),
`keys/` (0700), `journal/`, `audit.log`, `snapshots/`, `logs/`, `hub.lock` and `supervisor.lock`. A run is live exactly
while its hub holds the lock on `hub.lock`: a lock ends with its process however that dies, a file's existence does not.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shlex
import time
from pathlib import Path

import msgspec

from driftline import bounded_file
from driftline.text import sanitize_struct

RUNS_VARIABLE = "DRIFTLINE_RUNS"
RUN_VARIABLE = "DRIFTLINE_RUN"
CONNECTION_BYTES = 1 << 16
"""Most bytes of a connection file."""
NOTE_BYTES = 1 << 20
"""Most bytes of the note beside a compacted segment."""

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})

_ENDPOINT = re.compile(r"ipc://.+|tcp://.+:[0-9]{1,5}")
_KEY = re.compile(r"[0-9a-zA-Z.:+=^!/*?&<>()\[\]{}@%$#-]{40}")


class RunError(RuntimeError):
    """No such run, or a run that cannot be used; the message is a whole sentence for the operator."""


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """The connection file. Endpoints are ZeroMQ addresses, `server` the hub's CURVE public key in Z85."""

    run: str
    ingest: str
    live: str
    rpc: str
    server: str
    pid: int
    started: float
    synthetic: bool = False
    schema: int = 1


class RunDir(msgspec.Struct, frozen=True):
    """Paths of one run."""

    path: Path

    @property
    def id(self) -> str:
        """The run's name: its directory's."""
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def connection_file(self) -> Path:
        return self.path / "connection.json"

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    @property
    def audit(self) -> Path:
        return self.path / "audit.log"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def parquet(self) -> Path:
        """Closed segments of the journal as tables: `parquet/<table>/<segment>.parquet`."""
        return self.path / "parquet"

    def compacted(self, segment: int) -> Path:
        """The note that all tables of a segment are written; there is none before."""
        return self.parquet / f"{segment:06d}.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def lock(self) -> Path:
        return self.path / "hub.lock"

    @property
    def supervisor_lock(self) -> Path:
        """Held by the run's supervisor for as long as it lives."""
        return self.path / "supervisor.lock"

    @property
    def supervisor_file(self) -> Path:
        """What the supervisor is doing (`driftline.supervision`); removed when it ends in order."""
        return self.path / "supervisor.json"

    def live(self) -> bool:
        """True while a hub holds this run. Raises RunError where that cannot be known: a filesystem without locks."""
        return _held(self.lock)

    def supervised(self) -> bool:
        """True while a supervisor looks after the run's processes. Raises RunError as `live` does."""
        return _held(self.supervisor_lock)

    def connection(self) -> Connection:
        """Read the connection file. Raises RunError."""
        return read_connection(self.connection_file)

    def write_connection(self, connection: Connection) -> None:
        """Write the connection file at 0600, complete or not at all."""
        write_private(self.connection_file, msgspec.json.format(msgspec.json.encode(connection)))


def _held(lock: Path) -> bool:
    """True while a process holds this lock."""
    try:
        fd = os.open(lock, os.O_RDWR)
    except OSError:
        return False
    try:
        # Shared, so that two processes that check at the same moment do not take each other for the holder.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        raise RunError(lock_refusal(lock, error)) from error
    finally:
        os.close(fd)
    return False


def read_connection(path: Path) -> Connection:
    """Read a connection file, wherever it was brought. Raises RunError."""
    try:
        return parse_connection(bounded_file.read(path, CONNECTION_BYTES))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"{path}: not a connection file: {error}") from error


def parse_connection(data: bytes) -> Connection:
    """The content of a connection file, with text made safe to show. Raises ValueError."""
    try:
        found = sanitize_struct(msgspec.json.decode(data, type=Connection))
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    # What ZeroMQ would refuse is refused here, not on the thread that connects.
    for name in ("ingest", "live", "rpc"):
        if (endpoint := getattr(found, name)) and not _ENDPOINT.fullmatch(endpoint):
            raise ValueError(f"{name}: '{endpoint[:60]}' is neither tcp://HOST:PORT nor ipc://PATH")
    if not _KEY.fullmatch(found.server):
        raise ValueError("server: not a public key, which is 40 characters of Z85")
    return found


def write_private(path: Path, data: bytes) -> None:
    """Write `data` to a new file of mode 0600 beside `path`, then rename it into place."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, 0o600)  # whatever the umask
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def lock_refusal(path: Path, error: OSError) -> str:
    """A sentence for a lock that cannot be had though no other process holds it."""
    text = f"{path}: cannot be locked: {error.strerror or error}"
    if error.errno in _NO_LOCKS:
        text += (
            "; its filesystem gives no locks: put runs on a disk of this machine, with DRIFTLINE_RUNS=/a/local/folder"
        )
    return text


def runs_root() -> Path:
    """The folder that holds the runs: $DRIFTLINE_RUNS, else ./runs. Raises RunError."""
    root = Path(os.environ.get(RUNS_VARIABLE) or "runs")
    try:
        return root.resolve()
    except OSError as error:
        raise RunError(f"{root}: cannot be found from here: {error.strerror}; is the current folder gone?") from error


def create(root: Path, name: str) -> RunDir:
    """Make a new run directory `<name>-<4 hex>` of mode 0700, as is `root` where it has to be made. Raises RunError."""
    try:
        make_private(root)
    except OSError as error:
        raise RunError(f"{root}: cannot make the run directory: {error.strerror}") from error
    for _ in range(64):
        path = root / f"{name}-{secrets.token_hex(2)}"
        try:
            _mkdir(path)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(f"{path}: cannot make the run directory: {error.strerror}") from error
        run = RunDir(path)
        for folder in (run.keys, run.journal, run.snapshots, run.logs):
            make_private(folder)
        return run
    raise RunError(f"{root}: no free run directory named {name}-*")


def make_private(path: Path) -> None:
    """Make a folder of mode 0700, whatever the umask; those above it that are missing too. Raises OSError.

    One that is there already keeps its mode: `driftline doctor` reports what others may read.
    """
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process was quicker
            _mkdir(folder)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def _mkdir(path: Path) -> None:
    path.mkdir(mode=0o700)
    path.chmod(0o700)  # a umask may take bits away from the owner, too


def find(name: str | None, root: Path | None = None) -> RunDir:
    """The run named by id or path; with no name $DRIFTLINE_RUN, else the newest live run. Raises RunError.

    A run whose supervisor lives counts as live where no other is: its hub is away and comes back.
    """
    root = root or runs_root()
    name = name or os.environ.get(RUN_VARIABLE) or None
    if name is None:
        live, waiting, refusals = [], [], []
        for run in list_runs(root):
            try:
                live += [run] if run.live() else []
                waiting += [run] if not live and run.supervised() else []
            except RunError as error:
                refusals.append(error)
        if not live and waiting:
            return waiting[0]
        if not live:
            if refusals:
                raise refusals[0]
            raise RunError(f"no live run in {root}; start one with: driftline run configs/demo.toml")
        return live[0]
    refusal = ""
    for path in (Path(name), root / name):
        try:
            if path.is_dir() and ((path / "journal").is_dir() or (path / "connection.json").exists()):
                return RunDir(path.resolve())
        except OSError as error:  # another user's, or longer than a name may be
            refusal = error.strerror or str(error)
    if refusal:
        raise RunError(f"run '{name[:200]}' cannot be looked at: {refusal.lower()}")
    if os.path.exists(name):
        raise RunError(
            f"{name} is no run directory; the log of another framework becomes one with: "
            f"driftline import {shlex.quote(name)} --as NAME"
        )
    raise RunError(f"no run '{name}': neither a run directory nor an id in {root}; see: driftline list")


def list_runs(root: Path | None = None) -> list[RunDir]:
    """All run directories under `root`, newest first."""
    root = root or runs_root()
    try:
        # Not Path.is_dir, which raises for a folder of another user's: it would hide all the others.
        paths = [p for p in root.iterdir() if os.path.isdir(p / "journal")]
    except OSError:
        return []

    def born(path: Path) -> float:
        try:
            config = path / "config.toml"
            return config.stat().st_mtime if config.exists() else path.stat().st_ctime
        except OSError:
            return 0.0

    return [RunDir(path) for path in sorted(paths, key=born, reverse=True)]


def wait_connection(run: RunDir, timeout: float) -> Connection:
    """Wait until the run's hub is up. Raises RunError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if run.live() and run.connection_file.exists():
            return run.connection()
        time.sleep(0.02)
    raise RunError(f"{run.path}: the hub did not come up within {timeout:.0f} s; see {run.logs / 'hub.log'}")
