"""The folder of evidence: complete under its name, or no folder at all."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from console.evidence.summary import markdown
from console.export import ExportError, export
from console.store.load import load
from driftline import __version__
from driftline.audit import former
from driftline.rundir import RunDir
from driftline.text import sanitize

TABLES: Final = ("metrics", "tokens", "sequences", "syncs", "fixes", "events", "commands")
Pictures = Callable[[RunDir], Iterator[tuple[str, str]]]
"""Names and SVG texts of the screens over a run."""


class EvidenceError(RuntimeError):
    """A bundle that was not written; the message is a whole sentence, and no folder is left under its name."""


def bundle(run: RunDir, out: Path, pictures: Pictures, say: Callable[[str], None]) -> Path:
    """Write everything about a run into the new folder `out`; `say` is called with each part as it is written.

    `manifest.json` has the SHA-256 of every other file. Raises EvidenceError.
    """
    if out.exists():
        raise EvidenceError(f"{out} exists already; give a new folder with --out")
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True, mode=0o700)
        _fill(run, temporary, pictures, say)
        os.rename(temporary, out)
    except (ExportError, OSError) as error:
        reason = str(error)
        if isinstance(error, OSError) and error.strerror:
            reason = f"{error.filename or out}: {error.strerror}"
        raise EvidenceError(f"no evidence was written: {reason}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def _fill(run: RunDir, folder: Path, pictures: Pictures, say: Callable[[str], None]) -> None:
    files: list[tuple[str, str]] = []
    (folder / "tables").mkdir()
    for table in TABLES:
        say(f"table {table}")
        report = export(run, folder / "tables" / f"{table}.parquet", table)
        files.append((f"tables/{table}.parquet", f"{report.rows} rows x {report.columns} columns"))
    for path, name, what in (
        (run.config, "config.toml", "the configuration as run"),
        (run.audit, "audit.log", "commands and refusals, hash-chained"),
        (former(run.audit), "audit.log.1", "the entries before those"),
    ):
        if path.exists():
            shutil.copyfile(path, folder / name)
            files.append((name, what))
    (folder / "screens").mkdir()
    for screen, svg in pictures(run):
        say(f"screen {screen}")
        (folder / "screens" / f"{screen}.svg").write_text(svg, encoding="utf-8")
        files.append((f"screens/{screen}.svg", f"the {screen} screen as the recording ends"))
    say("summary")
    loaded = load(run)
    files.append(("manifest.json", "SHA-256 of every other file"))
    text = markdown(sanitize(run.id), loaded.model, loaded.damaged, files)
    (folder / "summary.md").write_text(text, encoding="utf-8")
    manifest = {
        "driftline": __version__,
        "run": sanitize(run.id),
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "last_frame": loaded.seq,
        "files": {str(path.relative_to(folder)): _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
