"""Another user's account on this machine, made for a test and removed after it, reached by a real SSH on loopback."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.e2e.sshd import Sshd, lacking, required
from tests.unit.hubs import PATIENCE, until

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = Path(sysconfig.get_paths()["purelib"])
PYTHON_PLACES: Final = "/usr/local/bin:/usr/bin:/bin"


class Account:
    """Its user has nothing of this one's but Python, the installed packages and the checkout, which are open to all."""

    def __init__(self, scratch: Path) -> None:
        self.python = _python()
        self.user = f"driftline-{os.getpid()}"
        # pytest's own folders are closed to other users.
        self.home = Path(tempfile.mkdtemp(prefix="driftline-account-"))
        # "*" matches no password, and unlike "!" does not make the account a locked one to sshd.
        _run(
            "useradd",
            "--no-create-home",
            "--home-dir",
            str(self.home),
            "--shell",
            "/bin/sh",
            "--password",
            "*",
            self.user,
        )
        try:
            self.sshd = Sshd(scratch / "sshd", self.user, self.home / "authorized_keys")
            self.own()
            self.sshd.start()
        except BaseException:
            self.remove()
            raise

    @property
    def uid(self) -> int:
        return pwd.getpwnam(self.user).pw_uid

    def own(self) -> None:
        """Give its user everything in its home."""
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, self.uid, pwd.getpwnam(self.user).pw_gid)

    def command(self, *words: str, **variables: str) -> list[str]:
        """A command that runs these words there, in its home."""
        settings = [f"{name}={value}" for name, value in variables.items()]
        there = shlex.join(["env", *settings, *words])
        return [str(self.sshd.program), "-p", str(self.sshd.port), f"{self.user}@127.0.0.1", there]

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run them there to their end."""
        command = self.command(*words, **variables)
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE + 60, stdin=subprocess.DEVNULL
        )

    def copy(self, *files: Path) -> None:
        """Bring files to its home, as a person would."""
        program = ["scp", "-q", "-S", str(self.sshd.program), "-P", str(self.sshd.port)]
        _run(*program, *map(str, files), f"{self.user}@127.0.0.1:")

    def processes(self) -> list[psutil.Process]:
        """Those of its user."""
        found = []
        for process in psutil.process_iter(["uids", "status"]):
            uids = process.info["uids"]
            if uids is not None and uids.real == self.uid and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def remove(self) -> None:
        """End what its user runs, then take the account away."""
        if hasattr(self, "sshd"):
            self.sshd.stop()
        for process in self.processes():
            process.kill()
        until(lambda: not self.processes(), "its processes to end")
        _run("userdel", self.user)
        shutil.rmtree(self.home)


def obstacle() -> str:
    """Why no such account can be made here, "" where it can."""
    if os.geteuid() != 0:
        return "only root can make another user's account"
    if missing := [name for name in ("useradd", "userdel", "scp") if shutil.which(name) is None]:
        return f"no {' and no '.join(missing)} here"
    if closed := [path for path in (ROOT, PACKAGES) if not _open(path)]:
        return f"other users may not read {closed[0]}"
    if not _python():
        wanted = ".".join(map(str, sys.version_info[:2]))
        own = Path(sys.executable).resolve()
        return f"no Python {wanted} here that other users may run: not {own}, nor in {PYTHON_PLACES}"
    return ""


def needed() -> None:
    """Skip with the reason where none can be made."""
    required()
    if why := obstacle():
        pytest.skip(why)


def possible() -> bool:
    """Whether one can be made and reached here."""
    return not lacking() and not obstacle()


def variables(given: Mapping[str, str]) -> dict[str, str]:
    """Those of an environment that a process of the account needs, with the packages of this Python beside it."""
    prefixes = ("VLLM_", "HF_", "TRANSFORMERS_", "OMP_", "TORCH_", "NO_COLOR")
    kept = {name: value for name, value in given.items() if name.startswith(prefixes)}
    return {**kept, "PYTHONPATH": f"{given['PYTHONPATH']}{os.pathsep}{PACKAGES}"}


def _python() -> str:
    """A Python of this one's version that every user may run; "" for none."""
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for found in (str(Path(sys.executable).resolve()), shutil.which(name, path=PYTHON_PLACES)):
        if found and _open(Path(found).resolve()):
            return found
    return ""


def _open(path: Path) -> bool:
    """Whether every user may read it, and come to it."""
    return bool(path.stat().st_mode & 0o004) and all(parent.stat().st_mode & 0o001 for parent in path.parents)


def _run(*command: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PATIENCE, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{command[0]}: {done.stderr}"
