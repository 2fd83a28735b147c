"""A hub on a thread of this process: the same server that a run has, on loopback, with its keys and its journal."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Self

from driftline import rundir
from driftline.client import Client, attach
from driftline.frames import Frame, Stamped
from driftline.hub import run_lock
from driftline.hub.server import Server
from driftline.journal.records import read
from driftline.keys import make_run_keys
from driftline.rundir import Connection, RunDir
from driftline.testing.waiting import PATIENCE, until


class InProcessHub:
    """The hub of a run of its own, from `with` to its end.

    `root` is the folder for the run directory; without one it is a temporary folder, removed at the end. Probes find
    the hub by `run`, clients by `client()`. It ends with the process; to see a program through a hub that is killed,
    start `python -m driftline.hub RUN_DIR`.
    """

    def __init__(self, root: Path | None = None, name: str = "test") -> None:
        self._own = root is None
        self._root = Path(tempfile.mkdtemp(prefix="driftline-")) if root is None else root
        self.run: RunDir = rundir.create(self._root, name)
        make_run_keys(self.run)
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self._lock = -1
        self._error: BaseException | None = None

    def start(self) -> Connection:
        """Serve, from where the journal ends; raises what the hub raises."""
        self._lock = run_lock.take(self.run)
        try:
            server = self._server = Server(self.run, lock=self._lock)
        except BaseException:
            os.close(self._lock)
            raise
        before = self.run.connection_file.stat().st_mtime_ns if self.run.connection_file.exists() else 0
        self._thread = threading.Thread(target=self._serve, args=(server,), name="driftline-hub", daemon=True)
        self._thread.start()
        until(lambda: self._error is not None or self._written(before), "the hub to come up")
        self._check()
        return self.run.connection()

    def _written(self, before: int) -> bool:
        try:
            return self.run.connection_file.stat().st_mtime_ns != before
        except FileNotFoundError:
            return False

    def stop(self) -> None:
        """End the hub in order; the run stays, and `start` goes on with it. Raises what has ended it before."""
        if self._server is None or self._thread is None:
            return
        self._server.stopping = True
        self._thread.join(PATIENCE)
        self._server = self._thread = None
        os.close(self._lock)
        self._check()

    def close(self) -> None:
        """End the hub; remove the temporary folder."""
        try:
            self.stop()
        finally:
            if self._own:
                shutil.rmtree(self._root, ignore_errors=True)

    def client(self) -> Client:
        """A client with the operator's key; the caller closes it."""
        return Client(*attach(self.run))

    def stamped(self) -> list[Stamped]:
        """Everything in the journal, in order."""
        self._check()
        return list(read(self.run.journal))

    def frames(self, producer: str = "") -> list[Frame]:
        """The frames in the journal, in order; of one producer where one is named."""
        return [one.frame() for one in self.stamped() if producer in ("", one.producer)]

    def _serve(self, server: Server) -> None:
        try:
            server.run()
        except BaseException as error:  # noqa: BLE001  raised again on the thread of the test
            self._error = error
        finally:
            server.close()

    def _check(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise RuntimeError(f"the hub has ended: {error}") from error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
