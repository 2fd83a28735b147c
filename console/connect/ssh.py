"""Addresses of runs on other machines, and OpenSSH's argument lists. Pure: nothing here starts anything.

Never a shell string on this side: a list of arguments, with `--` before the destination and nothing in a user or host
name that OpenSSH could take for an option. The other machine runs one `cat` of a quoted path, because sshd hands
every command to the login shell there.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from driftline.rundir import Connection

SCHEME: Final = "ssh://"
ALIVE_SECONDS: Final = 5
"""Seconds between the keep-alive requests of OpenSSH, which gives up after ALIVE_TRIES without an answer."""
ALIVE_TRIES: Final = 3
CONNECT_SECONDS: Final = 15

_URL: Final = re.compile(r"ssh://(?:([^@/]*)@)?(\[[^\]/]*\]|[^:/@]*)(?::([^/]*))?(/.*)?", re.DOTALL)
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}")
_HOST: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_IPV6: Final = re.compile(r"\[[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9]{1,16})?\]")
_PATH: Final = re.compile(r"/[A-Za-z0-9._/~+@=:, -]{1,1000}")
_ENDPOINT: Final = re.compile(r"tcp://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]*):([0-9]{1,5})")


class AddressError(ValueError):
    """Not an address of a run on another machine; the message is a whole sentence for the operator."""


@dataclass(frozen=True)
class Address:
    """`ssh://[user@]host[:port]/path`. `path` is absolute, or relative to the home there if it began with `/~/`."""

    user: str
    host: str
    port: int | None
    path: str

    @property
    def destination(self) -> str:
        """As OpenSSH takes it: `user@host`."""
        return f"{self.user}@{self.host}" if self.user else self.host

    @property
    def options(self) -> list[str]:
        """The port, where one was given; else the operator's own configuration of OpenSSH says which."""
        return ["-p", str(self.port)] if self.port is not None else []

    def file(self, name: str) -> str:
        """Path of a file of the run on that machine."""
        return f"{self.path}/{name}"


def is_address(name: str) -> bool:
    """True for what is meant as the address of a run on another machine."""
    return name.startswith(SCHEME)


def parse(text: str) -> Address:
    """Read `ssh://[user@]host[:port]/path/to/run`. Raises AddressError naming the part that is wrong."""
    shown = ascii(text[:120])[1:-1]
    match = _URL.fullmatch(text)
    if match is None:
        raise AddressError(f"'{shown}' is not of the form ssh://[user@]host[:port]/path/to/run")
    user, host, port, path = match.groups()
    if user is not None and _USER.fullmatch(user) is None:
        raise AddressError(f"'{shown}': the user may have letters, digits and . _ + - in it, with no - or . in front")
    if _HOST.fullmatch(host) is None and _IPV6.fullmatch(host) is None:
        raise AddressError(
            f"'{shown}': the host may have letters, digits and . _ - in it, with no - in front, or be an [IPv6 address]"
        )
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise AddressError(f"'{shown}': the port must be a number from 1 to 65535")
    if path is None or not path.strip("/"):
        raise AddressError(f"'{shown}': the path of the run directory is missing: ssh://host/path/to/run")
    if _PATH.fullmatch(path) is None:
        raise AddressError(f"'{shown}': the path may have letters, digits, spaces and . _ / ~ + @ = : , - in it")
    path = path.rstrip("/")
    # Commands start in the home directory, so what is below it needs no expansion by a shell.
    path = f"./{path[3:]}" if path.startswith("/~/") else path
    return Address(user or "", host.strip("[]"), int(port) if port else None, path)


def master(address: Address, control: Path, *, prompts: bool) -> list[str]:
    """Arguments of the one process that owns the connection; `control` is the socket for the others.

    It forwards nothing by itself, also nothing of the operator's own configuration, and ends when the other side is
    silent. `prompts` False: no question on the terminal, which a screen may own.
    """
    options = {
        "ControlPersist": "no",
        "ClearAllForwardings": "yes",
        "ExitOnForwardFailure": "yes",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "PermitLocalCommand": "no",
        "RemoteCommand": "none",
        "StreamLocalBindUnlink": "yes",
        "StreamLocalBindMask": "0177",
        "ServerAliveInterval": str(ALIVE_SECONDS),
        "ServerAliveCountMax": str(ALIVE_TRIES),
        "ConnectTimeout": str(CONNECT_SECONDS),
    } | ({} if prompts else {"BatchMode": "yes"})
    pairs = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    return ["-M", "-S", str(control), "-N", "-T", *pairs, *address.options, "--", address.destination]


def channel(address: Address, control: Path) -> list[str]:
    """First arguments of a process that uses the connection at `control`, and fails rather than make one of its own."""
    return ["-F", "none", "-S", str(control), "-o", "BatchMode=yes", "-o", "ProxyCommand=false", *address.options]


def read_file(address: Address, control: Path, path: str) -> list[str]:
    """Arguments that print a file of the other machine; for a FIFO they fail without a word, instead of waiting."""
    quoted = shlex.quote(path)
    return [*channel(address, control), "-T", "--", address.destination, f"test ! -p {quoted} && cat -- {quoted}"]


def forward(
    address: Address, control: Path, connection: Connection, folder: Path, *, cancel: bool = False
) -> list[str]:
    """Arguments that forward the hub's two endpoints for consoles to sockets in `folder`. Raises AddressError."""
    forwards = []
    for name, endpoint in (("live", connection.live), ("rpc", connection.rpc)):
        match = _ENDPOINT.fullmatch(endpoint)
        if match is None:
            raise AddressError(f"the connection file of run {connection.run} has no TCP address for '{name}'")
        forwards += ["-L", f"{folder / name}:{match[1]}:{match[2]}"]
    verb = "cancel" if cancel else "forward"
    return [*channel(address, control), "-O", verb, *forwards, "--", address.destination]


def last_words(text: str) -> str:
    """The line of OpenSSH's output that gives the reason, shortened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reasons = [line for line in lines if not line.startswith(("Warning:", "debug", "**", "@"))]
    return (reasons or lines or ["ssh printed nothing"])[-1].removeprefix("ssh: ").rstrip(".")
