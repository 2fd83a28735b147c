"""CURVE key pairs and roles of one run.

`keys/<key>.key` (0600, folder 0700) holds a pair; `keys/authorized` says what each public key may do, one line a
key: `role name public`. A role is `producer` (may ingest as a name that matches `name`, a shell pattern),
`viewer` (may watch) or `operator` (may watch and command). Words may follow: `no-tokens` takes raw tokens (with the
text of what the model wrote) out of what a key may watch; `kinds=engine,metrics` says what a producer's key may send
(`driftline.hub.coverage` has the table). A producer's line without it, as older versions wrote it, has the kinds that
its name stands for: see `kinds_by_name`. The hub reads the file again when it changes.
"""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal, get_args

import msgspec

from driftline import bounded_file
from driftline.rundir import RunDir, RunError, lock_refusal, make_private, write_private

Role = Literal["producer", "viewer", "operator"]
Kind = Literal["trainer", "engine", "supervisor", "metrics"]
"""What a producer is, and so what its key may send."""
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
NO_TOKENS: Final = "no-tokens"
_KINDS_WORD: Final = "kinds="

TRAINER: Final = "trainer"
"""Producer name of the process that carries commands out and reports the run's state."""
HUB: Final = "hub"
"""Producer name of the frames that the hub itself adds; no key may use it."""

SUPERVISOR: Final = "supervisor"
"""Producer name of the process that starts the others of a run and reports their state."""
RUN_KEYS: Final[tuple[tuple[str, Role | None, str, tuple[Kind, ...]], ...]] = (
    ("server", None, "", ()),
    ("trainer", "producer", TRAINER, ("trainer",)),
    ("engine", "producer", "engine-*", ("engine",)),
    (SUPERVISOR, "producer", SUPERVISOR, ("supervisor",)),
    ("viewer", "viewer", "local", ()),
    ("operator", "operator", "local", ()),
)
"""Key file, role, name and kinds of the pairs that every run starts with."""

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
    kinds: tuple[Kind, ...] = ()
    """As granted; () where the grant says nothing of it. `sends` is what counts."""

    @property
    def sends(self) -> tuple[Kind, ...]:
        """What this key is as a producer: () for a key that is none."""
        return () if self.role != "producer" else self.kinds or kinds_by_name(self.name)

    def may_produce(self, producer: str) -> bool:
        """True if this key may ingest under that name. Names that stand for a kind are for keys of that kind."""
        if self.role != "producer" or producer == HUB or not fnmatch.fnmatchcase(producer, self.name):
            return False
        return producer not in (TRAINER, SUPERVISOR) or producer in self.sends

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


def kinds_by_name(name: str) -> tuple[Kind, ...]:
    """The kinds of a producer's key whose grant names none: keys that older versions made keep what they were for."""
    if name in (TRAINER, SUPERVISOR):
        return (TRAINER,) if name == TRAINER else (SUPERVISOR,)
    return ("engine",) if name.startswith("engine") else ("metrics",)


def new_pair() -> Keys:
    """A fresh random pair."""
    import zmq  # only where a pair is made or read: a console finds its run without

    public, secret = zmq.curve_keypair()
    return Keys(public.decode(), secret.decode())


def make_run_keys(run: RunDir) -> None:
    """Make the missing keys of a run; existing ones stay, so that a restarted hub accepts the same clients."""
    make_private(run.keys)
    lines = []
    for key, role, name, kinds in RUN_KEYS:
        path = _path(run, key)
        if not path.exists():
            _write_once(path, new_pair())
        if role is not None:
            lines.append(_line(Grant(role, name, load(run, key).public, kinds=kinds)))
    authorized = run.keys / "authorized"
    if not authorized.exists():
        write_private(authorized, "".join(["# role name public-key\n", *lines]).encode())


def producer_keys(run: RunDir, names: Iterable[str], kind: Kind) -> dict[str, Keys]:
    """By name the pair of each producer, granted that name and kind alone; made where there is none. Raises RunError.

    Where a key was revoked the next start makes another pair: the revoked one stays refused.
    """
    found = {}
    for name in names:
        grants = read_authorized(run.keys / "authorized")
        path = _path(run, name)
        grant = grants.get(load(run, name).public) if path.exists() else None
        if grant is None:
            path.unlink(missing_ok=True)
            add(run, name, "producer", name, kinds=(kind,))
        elif grant.name != name or grant.sends != (kind,):
            raise RunError(
                f"{path}: this key is not of {kind} '{name}' but of {grant.identity}; to go on: driftline keys "
                f"revoke {name}"
            )
        found[name] = load(run, name)
    return found


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
        try:
            grant = _parse(line.split())
        except ValueError as error:
            raise RunError(f"{path}: line {number}: {error}") from error
        grants[grant.public] = grant
    return grants


def _parse(words: list[str]) -> Grant:
    """One grant. Raises ValueError with a clause."""
    match words:
        case [role, name, public, *rest] if role in get_args(Role) and len(public) == 40:
            kinds = [word.removeprefix(_KINDS_WORD) for word in rest if word.startswith(_KINDS_WORD)]
            others = [word for word in rest if not word.startswith(_KINDS_WORD)]
            if others not in ([], [NO_TOKENS]) or len(kinds) > 1:
                raise ValueError(f"after the key only '{NO_TOKENS}' and '{_KINDS_WORD}...' are allowed, each once")
            if kinds and role != "producer":
                raise ValueError("only a producer's key has kinds")
            grant = msgspec.convert({"role": role, "name": name, "public": public, "tokens": not others}, Grant)
            return msgspec.structs.replace(grant, kinds=parse_kinds(kinds[0])) if kinds else grant
        case _:
            raise ValueError(f"expected 'role name public-key' with a role of {', '.join(get_args(Role))}")


def parse_kinds(text: str) -> tuple[Kind, ...]:
    """Kinds from a list with commas, each once, in the order of KINDS. Raises ValueError with a clause."""
    wanted = text.split(",")
    if unknown := [word for word in wanted if word not in KINDS]:
        raise ValueError(f"'{unknown[0][:40]}' is not a kind of producer; there are {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in wanted)


def _line(grant: Grant) -> str:
    words = [grant.role, grant.name, grant.public]
    words += [] if grant.tokens else [NO_TOKENS]
    words += [f"{_KINDS_WORD}{','.join(grant.sends)}"] if grant.sends else []
    return " ".join(words) + "\n"


def add(run: RunDir, key: str, role: Role, name: str, tokens: bool = True, kinds: tuple[Kind, ...] = ()) -> Path:
    """Make a pair, grant it a role, and return where it was written: `keys/<key>.key`, mode 0600. Raises RunError.

    `kinds` are those of a producer; without any it has the kinds that its name stands for (`kinds_by_name`).
    """
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
        line = _line(Grant(role, name, keys.public, tokens, kinds))
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
        if key != public and key not in {own for own, *_ in RUN_KEYS}:
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
