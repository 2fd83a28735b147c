"""The audit log of a running hub: what an earlier one left open, entries that must not stop it, a file taken away."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from driftline.audit import AuditError, AuditLog, Entry
from driftline.hub.core import Core
from driftline.hub.effects import clock
from driftline.journal.disk import Disk

log = logging.getLogger("driftline.hub")


class HubAudit:
    """The audit log of a hub that starts. Raises AuditError."""

    def __init__(self, path: Path, core: Core, disk: Disk) -> None:
        self.log = AuditLog(path, disk)
        self._trouble = ""
        if self.log.damage:
            log.error("audit log: %s; it is continued", self.log.damage)
        for entry in core.unrecorded(self.log.open, clock()):
            self.log.append(entry)
        self.log.append(Entry("hub.started", time.time(), text=f"epoch {core.epoch}"))

    def note(self, entry: Entry) -> bool:
        """Add an entry about something that has happened; false where that cannot be written."""
        try:
            self.log.append(entry)
        except AuditError as error:
            # What it is about has happened already, and refusing is safe; the next command will find the log broken.
            log.error("not in the audit log: %s %s: %s", entry.kind, entry.who, error)
            return False
        return True

    def look(self) -> bool:
        """Put the file back where it was removed or replaced; whether something is new in it."""
        try:
            if not self.log.restore_file():
                return False
        except AuditError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                log.error("the audit log was removed or replaced: %s", error)
            return False
        log.warning("%s was removed or replaced: it is put back with all its lines", self.log.path)
        self._trouble = ""
        return self.note(Entry("hub.audit_restored", time.time(), text="the file was removed or replaced"))
