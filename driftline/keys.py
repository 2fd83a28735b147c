"""CURVE key pairs and roles of one run.

`keys/<key>.key` (0600, folder 0700) holds a pair; `keys/authorized` says what each public key may do, one line a
key: `role name public`. A role is `producer` (may ingest as a name that matches `name`, a shell pattern),
`viewer` (may watch) or `operator` (may watch and command). A fourth word `no-tokens` takes raw tokens (with the text
of what the model wrote) out of what a key may watch. The hub reads the file again when it changes.
"""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, get_args

import msgspec

from driftline import bounded_file
from driftline.rundir import RunDir, RunError, lock_refusal, make_private, write_private

Role = Literal["producer", "viewer", "operator"]
NO_TOKENS: Final = "no-tokens"

SUPERVISOR: Final = "supervisor"
"""Producer name of the process that starts the others of a run and reports their state."""
RUN_KEYS: Final[tuple[tuple[str, Role | None, str], ...]] = (
    ("server", None, ""),
    ("trainer", "producer", "trainer"),
    ("engine", "producer", "engine-*"),
    (SUPERVISOR, "producer", SUPERVISOR),
    ("viewer", "viewer", "local"),
    ("operator", "operator", "local"),
)
"""Key file, role and name of the pairs that every run starts with."""

KEY_BYTES: Final = 4096
"""Most bytes of a key file, which holds two lines."""
_AUTHORIZED_BYTES: Final = 1 << 20
_KEY_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_NAME: Final = re.compile(r"[A-Za-z0-9_*?-][A-Za-z0-9._*?-]{0,63}")


class Keys(msgspec.Struct, frozen=True):
    """A CURVE25519 pair in Z85 (40 characters each)."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"Keys(public={self.public!r}, secret=...)"


class Grant(msgspec.Struct, frozen=True):
    """The rights of one public key."""

    role: Role
    name: str
    public: str
    tokens: bool = True

    def may_produce(self, producer: str) -> bool:
        """True if this key may ingest under that name."""
        return self.role == "producer" and fnmatch.fnmatchcase(producer, self.name)

    @property
    def identity(self) -> str:
        """Role and name: the identity of the holder in frames and in the audit log."""
        return f"{self.role} {self.name}"

    @property
    def may_watch(self) -> bool:
        return self.role in ("viewer", "operator")

    @property
    def may_command(self) -> bool:
        return self.role == "operator"


def new_pair() -> Keys:
    """A fresh random pair."""
    import zmq  # only where a pair is made or read: a console finds its run without

    public, secret = zmq.curve_keypair()
    return Keys(public.decode(), secret.decode())


def make_run_keys(run: RunDir) -> None:
    """Make the missing keys of a run; existing ones stay, so that a restarted hub accepts the same clients."""
    make_private(run.keys)
    lines = []
    for key, role, name in RUN_KEYS:
        path = _path(run, key)
        if not path.exists():
            _write_once(path, new_pair())
        if role is not None:
            lines.append(f"{role} {name} {load(run, key).public}\n")
    authorized = run.keys / "authorized"
    if not authorized.exists():
        write_private(authorized, "".join(["# role name public-key\n", *lines]).encode())


def load(run: RunDir, key: str) -> Keys:
    """Read one pair of the run. Raises RunError."""
    return load_file(_path(run, key))


def load_file(path: Path) -> Keys:
    """Read the pair in a key file, wherever it was brought. Raises RunError."""
    try:
        return parse_pair(bounded_file.read_text(path, KEY_BYTES, encoding="ascii"))
    except OSError as error:
        raise RunError(f"{path}: the key cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"{path}: not a key file of this project") from error


def parse_pair(text: str) -> Keys:
    """The pair that a key file holds. Raises ValueError."""
    import zmq  # as in `new_pair`

    fields = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    try:
        keys = Keys(fields["public"], fields["secret"])
        if zmq.curve_public(keys.secret.encode()).decode() != keys.public:
            raise ValueError("the two halves do not belong together")
    except (KeyError, zmq.ZMQError) as error:
        raise ValueError("not a key pair") from error
    return keys


def read_authorized(path: Path) -> dict[str, Grant]:
    """Read the table of grants by public key. Raises RunError naming the line that is wrong."""
    try:
        lines = _table_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not ASCII text"
        raise RunError(f"{path}: cannot be read: {reason}") from error
    grants: dict[str, Grant] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match line.split():
            case [role, name, public, *rest] if (
                role in get_args(Role) and len(public) == 40 and rest in ([], [NO_TOKENS])
            ):
                grants[public] = msgspec.convert(
                    {"role": role, "name": name, "public": public, "tokens": not rest}, Grant
                )
            case _:
                roles = ", ".join(get_args(Role))
                raise RunError(f"{path}: line {number}: expected 'role name public-key' with a role of {roles}")
    return grants


def add(run: RunDir, key: str, role: Role, name: str, tokens: bool = True) -> Path:
    """Make a pair, grant it a role, and return where it was written: `keys/<key>.key`, mode 0600. Raises RunError."""
    for what, text, allowed in (("key", key, _KEY_NAME), ("name", name, _NAME)):
        if allowed.fullmatch(text) is None:
            raise RunError(f"'{text[:80]}' is not a {what}: 1 to 64 letters, digits, '.', '_' or '-', no '.' in front")
    path = _path(run, key)
    with _editing(run):
        table = run.keys / "authorized"
        read_authorized(table)
        if path.exists():
            raise RunError(f"{path}: there is a key of that name already; revoke it first: driftline keys revoke {key}")
        keys = new_pair()
        _write_once(path, keys)
        line = f"{role} {name} {keys.public}{'' if tokens else f' {NO_TOKENS}'}\n"
        text = _table_text(table)
        write_private(table, (text + ("" if text.endswith("\n") or not text else "\n") + line).encode())
    return path


def revoke(run: RunDir, key: str) -> Grant:
    """Take away the grant of a key, named by its file or its public half; return what it was. Raises RunError.

    The hub notices within a second and cuts the holder off. The files of keys that every run has stay, so that
    their users learn that the key is refused, not that it is missing.
    """
    with _editing(run):
        table = run.keys / "authorized"
        grants = read_authorized(table)
        public = key if key in grants else load(run, key).public
        grant = grants.get(public)
        if grant is None:
            raise RunError(f"key '{key}' has no grant in {table}; see: driftline keys list")
        lines = _table_text(table).splitlines(keepends=True)
        write_private(table, "".join(line for line in lines if public not in line.split()).encode())
        if key != public and key not in {own for own, _, _ in RUN_KEYS}:
            _path(run, key).unlink(missing_ok=True)
    return grant


def key_files(run: RunDir) -> dict[str, str]:
    """Names of the key files of a run by public key; files that cannot be read are left out."""
    found = {}
    for path in sorted(run.keys.glob("*.key")):
        with contextlib.suppress(RunError):
            found[load(run, path.stem).public] = path.stem
    return found


@contextlib.contextmanager
def _editing(run: RunDir) -> Iterator[None]:
    """One editor of the table at a time. Raises RunError."""
    try:
        fd = os.open(run.keys, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise RunError(f"{run.keys}: no keys here: {error.strerror}") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as error:
            raise RunError(lock_refusal(run.keys, error)) from error
        yield
    except OSError as error:
        raise RunError(f"{run.keys}: cannot be changed: {error.strerror}") from error
    finally:
        os.close(fd)


def _table_text(path: Path) -> str:
    return bounded_file.read_text(path, _AUTHORIZED_BYTES, encoding="ascii")


def _path(run: RunDir, key: str) -> Path:
    return run.keys / f"{key}.key"


def _write_once(path: Path, keys: Keys) -> None:
    # Linked into place, so that two processes that start together agree on one pair and never see half of it.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    write_private(temporary, f"public {keys.public}\nsecret {keys.secret}\n".encode())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
