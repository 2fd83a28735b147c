"""The folder of evidence: complete under its name, or no folder at all."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Final

import msgspec

from console.diagnosis.recorded import diagnose_run
from console.diagnosis.report import document, lines
from console.evidence.summary import markdown
from console.export import ExportError, export
from console.formatting import to_json
from console.process import ending
from console.store.load import load
from driftline import __version__, bounded_file
from driftline.audit import former
from driftline.journal.holes import lacks
from driftline.rundir import RunDir
from driftline.text import sanitize

TABLES: Final = ("metrics", "tokens", "sequences", "syncs", "fixes", "events", "commands")
_COPIED_BYTES: Final = 1 << 30
"""Most bytes of a configuration or an audit log that are copied."""


class Picture(msgspec.Struct, frozen=True):
    """A screen over a run as an SVG, or `problem`: why it was not drawn, as a clause."""

    screen: str
    svg: str = ""
    problem: str = ""


class Evidence(msgspec.Struct, frozen=True):
    """A written folder. `problems` are clauses about what could not be put into it, `missing` about what the run's
    journal lacks."""

    path: Path
    problems: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


Pictures = Callable[[RunDir], Iterator[Picture]]
"""The screens over a run."""


class EvidenceError(RuntimeError):
    """A bundle that was not written; the message is a whole sentence, and no folder is left under its name."""


def bundle(run: RunDir, out: Path, pictures: Pictures, say: Callable[[str], None]) -> Evidence:
    """Write everything about a run into the new folder `out`; `say` is called with each part as it is written.

    `manifest.json` has the SHA-256 of every other file. What could not be gathered is named in the summary and in the
    answer, and the rest is written. Raises EvidenceError.
    """
    if out.exists():
        raise EvidenceError(f"{out} exists already; give a new folder with --out")
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        with ending.temporary(temporary):
            temporary.mkdir(parents=True, mode=0o700)
            missing = tuple(lacks(run))
            problems = _fill(run, temporary, pictures, say, missing)
            os.rename(temporary, out)
    except (ExportError, OSError) as error:
        reason = str(error)
        if isinstance(error, OSError) and error.strerror:
            reason = f"{error.filename or out}: {error.strerror}"
        raise EvidenceError(f"no evidence was written: {reason}") from error
    return Evidence(out, tuple(problems), missing)


def _fill(
    run: RunDir, folder: Path, pictures: Pictures, say: Callable[[str], None], missing: tuple[str, ...]
) -> list[str]:
    problems: list[str] = []
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
        if not path.exists():
            continue
        try:
            bounded_file.copy(path, folder / name, _COPIED_BYTES)
        except bounded_file.UnfitFileError as error:
            problems.append(f"{name} was not copied: {error.strerror}")
        else:
            files.append((name, what))
    (folder / "screens").mkdir()
    drawn = pictures(run)
    try:
        for picture in drawn:
            screen = picture.screen
            say(f"screen {screen}")
            if picture.problem:
                problems.append(f"the {screen} screen was not drawn: {sanitize(picture.problem)}")
                continue
            (folder / "screens" / f"{screen}.svg").write_text(picture.svg, encoding="utf-8")
            files.append((f"screens/{screen}.svg", f"the {screen} screen as the recording ends"))
    finally:
        if isinstance(drawn, Generator):  # what draws ends here, before Python does
            drawn.close()
    say("summary")
    loaded = load(run)
    diagnosis = diagnose_run(run, loaded.model)
    (folder / "diagnosis.json").write_text(to_json(document(diagnosis)) + "\n", encoding="utf-8")
    files.append(("diagnosis.json", "the diagnosis of its token pairs, with every reading"))
    files.append(("manifest.json", "SHA-256 of every other file"))
    text = markdown(sanitize(run.id), loaded.model, loaded.damaged, files, (*missing, *problems), lines(diagnosis))
    (folder / "summary.md").write_text(text, encoding="utf-8")
    manifest = {
        "driftline": __version__,
        "run": sanitize(run.id),
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "last_frame": loaded.seq,
        "files": {str(path.relative_to(folder)): _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return problems


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
