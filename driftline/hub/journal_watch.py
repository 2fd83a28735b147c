"""Whether the journal's files are still where they should be, and what follows when they are not.

While they are not, nothing is acknowledged: producers keep their frames and send them again.
"""

from __future__ import annotations

import logging
import os
from typing import Final

from driftline.frames import Event, encode
from driftline.hub import run_lock
from driftline.hub.core import Core
from driftline.hub.effects import Effect, Now, Write
from driftline.journal.journal import Journal, JournalError
from driftline.journal.lost import LOST
from driftline.journal.rescue import same_file
from driftline.rundir import RunDir, RunError

RETRY_SECONDS: Final = 0.2

log = logging.getLogger("driftline.hub")


class JournalWatch:
    """Looks before every round of acknowledgements, and while the journal is lost, tries to go on in its place.

    `lock` is the descriptor of the run's lock, -1 where the caller takes care of it.
    """

    def __init__(self, run: RunDir, journal: Journal, core: Core, lock: int) -> None:
        self._run, self._journal, self._core, self._lock = run, journal, core, lock
        self._since = self._tried = 0.0
        self._reason = ""

    @property
    def trouble(self) -> str:
        """For the beacon: a sentence while the journal is lost, else ""."""
        return f"{LOST}: {self._journal.lost}" if self._journal.lost else ""

    def look(self, now: Now) -> list[Effect]:
        """The effects that follow from a change; none as a rule."""
        if not self._reason:
            if self._journal.check():
                return []
            self._reason, self._since = self._journal.lost, now.mono
            self._core.producers.holding = True
            log.error("%s: nothing is acknowledged until it is back", self.trouble)
        if now.mono - self._tried < RETRY_SECONDS:
            return []
        self._tried = now.mono
        if self._journal.check():
            return self._goes_on("the same files are back", 0, now)
        away = self._journal.lost
        if problem := self._claim():
            self._journal.lost = problem
            return []
        try:
            gone = self._journal.resume()
        except JournalError:
            self._complain(away)
            return []
        return self._goes_on(f"it goes on in a new segment in {self._journal.folder}", gone, now)

    def report(self) -> None:
        """At the end: say what ends with this process."""
        if self._journal.lost and self._journal.unsafe:
            log.error("%s: %d frames in its files may be gone with this hub", self.trouble, self._journal.unsafe)

    def _complain(self, away: str) -> None:
        if self._journal.lost not in (away, self._reason):
            self._reason = self._journal.lost
            log.error("%s", self.trouble)

    def _claim(self) -> str:
        """Take the lock of a run directory that was put in the place of the old one; why not, "" if it is held."""
        if self._lock < 0 or not self._journal.folder.is_dir():
            return ""  # without a folder there is nothing to go on in
        try:
            if same_file(self._run.lock, self._lock):
                return ""
        except FileNotFoundError:
            pass
        except OSError as error:
            return f"{self._run.lock}: {error.strerror}"
        try:
            taken = run_lock.take(self._run, tries=1)
        except RunError as error:
            return str(error)
        os.close(self._lock)
        self._lock = taken
        return ""

    def _goes_on(self, how: str, gone: int, now: Now) -> list[Effect]:
        text = f"{LOST} for {now.mono - self._since:.1f} s ({self._reason}): {how}; "
        text += f"{gone} acknowledged frames are gone" if gone else "no acknowledged frame is gone"
        log.warning("%s", text)
        self._reason = ""
        self._core.producers.holding = False
        event = Event(now.wall, "error" if gone else "warn", "journal.lost", text, data={"gone": gone})
        return [Write(encode(event), event)]
