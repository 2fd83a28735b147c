"""A real sshd of the test's own on loopback, for the current user or, as root, for another one; and an `ssh` for it.

That `ssh` trusts it and nothing else.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.unit.hubs import PATIENCE, until

_SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")


def lacking() -> str:
    """Why there can be no sshd here, "" where there can."""
    missing = [name for name, found in (("sshd", _SSHD), ("ssh", shutil.which("ssh"))) if not found]
    return (
        f"no {' and no '.join(missing)} here (Debian: openssh-server, openssh-client; see .ci/run)" if missing else ""
    )


def required() -> str:
    """Path of sshd. Without one the test is skipped with the reason, in CI it fails."""
    if reason := lacking():
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason)
        pytest.skip(reason)
    assert _SSHD is not None
    return _SSHD


class Sshd:
    """Started, stopped and started again on one port; ended by its id."""

    def __init__(self, folder: Path, user: str = "", authorized: Path | None = None) -> None:
        """`authorized` is where another user's account has its authorized keys, which sshd reads as that user."""
        self.folder = folder
        folder.mkdir(mode=0o700)
        self._program = required()
        self.user = user or getpass.getuser()
        authorized = authorized or folder / "authorized"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        for name in ("host", "client"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(command, check=True, timeout=PATIENCE)
        public = (folder / "host.pub").read_text().split()
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {public[0]} {public[1]}\n")
        shutil.copy(folder / "client.pub", authorized)
        (folder / "sshd.conf").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nStrictModes no\n"
            f"AuthorizedKeysFile {authorized}\nUsePAM no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nPermitRootLogin yes\nPrintMotd no\nMaxStartups 100\n"
            "Subsystem sftp internal-sftp\n"
        )
        (folder / "ssh.conf").write_text(
            f"IdentityFile {folder}/client\nIdentitiesOnly yes\nUserKnownHostsFile {folder}/known\n"
            f"GlobalKnownHostsFile none\nStrictHostKeyChecking yes\n"
        )
        # OpenSSH takes its configuration from the account's home, whatever HOME says: this `ssh` is the real one.
        programs = folder / "bin"
        programs.mkdir()
        (programs / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh.conf "$@"\n')
        (programs / "ssh").chmod(0o700)
        self.path = f"{programs}:{os.environ['PATH']}"
        self._programs = programs
        self.program = programs / "ssh"
        self._process: subprocess.Popen[bytes] | None = None

    def locked(self, passphrase: str) -> str:
        """PATH of an `ssh` whose only key asks for a passphrase on the terminal."""
        folder = self.folder / "locked"
        folder.mkdir()
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(folder / "client")]
        subprocess.run(command, check=True, timeout=PATIENCE)
        with (self.folder / "authorized").open("a") as authorized:
            authorized.write((folder / "client.pub").read_text())
        conf = (self.folder / "ssh.conf").read_text().replace(f"{self.folder}/client", f"{folder}/client")
        (folder / "ssh.conf").write_text(f"{conf}IdentityAgent none\n")
        script = (self._programs / "ssh").read_text().replace(f"{self.folder}/ssh.conf", f"{folder}/ssh.conf")
        (folder / "ssh").write_text(script)
        (folder / "ssh").chmod(0o700)
        return f"{folder}:{os.environ['PATH']}"

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where root's sshd separates privileges
        with (self.folder / "sshd.log").open("ab") as log:
            command = [self._program, "-D", "-e", "-f", str(self.folder / "sshd.conf")]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._listens, "sshd to listen")

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "sshd.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """No new connections; those that there are stay."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(PATIENCE)

    def url(self, path: Path | str) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}{path}"
