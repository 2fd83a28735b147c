"""Files about the run on show, in its snapshots: a table, or the evidence folder."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from console.tui.terminal.short_path import short_path
from driftline.rundir import RunDir
from driftline.text import sanitize

if TYPE_CHECKING:
    from console.tui.host import Host, Steps

EVIDENCE_SECONDS: Final = 600.0


class Exports:
    """Writing takes long and is a worker's; one table and one folder at a time."""

    def __init__(self, app: Host) -> None:
        self._app = app

    def table(self, table: str = "metrics", kind: str = "parquet", steps: Steps = (None, None)) -> None:
        """Write a table of the run, as far as it is now, as a file whose name ends with `kind`."""
        app = self._app
        if app.run_dir is None:
            app.say("the run's journal is not on this machine; in a shell here: driftline export --run RUN", "warn")
            return
        first, last = steps
        last = max(app.model.step, 0) if last is None else last
        out = app.run_dir.snapshots / f"{table}-step{'' if first is None else f'{first}-'}{last}.{kind}"
        app.say(f"exporting to {short_path(out)}")
        write = partial(self._write_table, app.run_dir, out, table, steps)
        app.run_worker(write, group="export", exclusive=True, thread=True)

    def evidence(self) -> None:
        """Write all about the run into one folder."""
        app = self._app
        if app.run_dir is None:
            app.say("the run's journal is not on this machine; in a shell there: driftline evidence RUN", "warn")
            return
        app.say("gathering evidence: tables, a picture of every screen, config, audit log, summary")
        app.run_worker(partial(self._write_evidence, app.run_dir), group="evidence", exclusive=True, thread=True)

    def _write_table(self, run: RunDir, out: Path, table: str, steps: Steps) -> None:
        # Polars takes a third of a second to import, which only who exports should pay for.
        from console.export import ExportError, export

        say = partial(self._app.call_from_thread, self._app.say)
        try:
            export(run, out, table, steps=steps)
        except (ExportError, OSError) as error:
            say(f"export failed: {error}", "error")
        else:
            say(f"exported to {short_path(out)}")

    def _write_evidence(self, run: RunDir) -> None:
        say = partial(self._app.call_from_thread, self._app.say)
        # A process of its own: it draws every screen, which this one is busy with.
        command = [sys.executable, "-m", "console.cli", "evidence", str(run.path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=EVIDENCE_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            say(f"no evidence after {EVIDENCE_SECONDS:.0f} s; in a shell: driftline evidence {run.path}", "error")
            return
        if done.returncode == 0:
            say(f"evidence in {short_path(done.stdout.strip())}")
        else:
            say(sanitize(done.stderr.strip().rpartition("\n")[2]), "error")
