"""What trainers print: the console logs of verl and slime, and the dictionaries of Hugging Face's Trainer and TRL.

    verl    step:1 - actor/entropy:0.22 - actor/lr:np.float64(2e-06)
    slime   step 0: {'train/loss': 0.1}      rollout 0: {...}      perf 0: {...}      eval 0: {...}
    TRL     {'loss': 0.0, 'reward': 0.21, 'epoch': 0.025}, without a step; or {"step": 1, "reward": 0.21}

Before them may stand what Ray and loggers print (`(TaskRunner pid=4242)`, a time, colours); other lines are skipped.

What a process prints may be anything, also a megabyte without a line's end. Every search here takes time that is
linear in the line: no pattern begins anew inside of what it has just passed, or repeats without a bound.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from console.importing import files
from console.importing.json_logs import add
from console.importing.rows import Log, LogImportError, text_number
from console.importing.steps import is_step
from driftline.bounded_file import UnfitFileError

SUFFIXES: Final = (".log", ".txt", ".out", ".err", "")
ADVICE: Final = (
    "read are lines of verl (step:N - name:value - ...), of slime (step N: {...}) and dictionaries of the Hugging Face "
    "Trainer; for another trainer switch on a logger to a file, TensorBoard or W&B (verl: trainer.logger=[file])"
)
OTHERS: Final = "lines with metrics that are not of the log's own form, such as one whose step is no whole number"
_LONGEST: Final = 1 << 20
"""Most characters of a line; a longer one is cut."""
_SNIFFED: Final = 1 << 19
"""Characters of a file that are looked at to tell whether it is a log."""
_COLOURS: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_REPEATED: Final = re.compile(r"\[repeated \d{1,19}x across cluster\]")
_VERL: Final = re.compile(r"(?:^|[\s\])])step:\s*(\d{1,19})\s+-\s+")
_SLIME: Final = re.compile(r"(?:^|[\s\])])([A-Za-z][\w-]*) (\d{1,19}): (?=\{)")
_SEPARATOR: Final = re.compile(r"(?<!\s)\s+-(?:\s+|$)")
_WRAPPED: Final = re.compile(
    r"\b(?:np\.|numpy\.|jnp\.)?(?:float\d+|int\d+|bfloat16|bool_|tensor|array)"
    r"\(\s{0,8}([^(),\[\]\s]{1,64})\s{0,8}(?:,[^()]{0,200})?\)"
)
"""A number as NumPy and torch print it: np.float64(0.13), tensor(0.13, device='cuda:0')."""
_WORD: Final = re.compile(r"(?<![\w'\"./-])(-?)(nan|inf|NaN|Infinity|null|true|false)(?![\w'\"/])")
_PROGRESS: Final = re.compile(r"(?<!\d)(\d{1,18})/\d{1,18} \[")
_STEP_OF: Final = {"rollout": "rollout/step", "perf": "rollout/step", "eval": "eval/step"}
"""slime counts rollouts and, in the lines `step N`, optimiser steps: the step that each kind of line is against."""
_TRAINER: Final = frozenset({"loss", "epoch", "learning_rate", "grad_norm", "reward", "train_loss", "eval_loss"})
_SUMMARY: Final = "train_runtime"
_LINES: Final = (
    "the printed dictionaries have no step, so that their lines are counted; the steps themselves are in "
    "trainer_state.json and in the Trainer's TensorBoard and W&B logs"
)
_BARS: Final = "the printed dictionaries have no step: the steps are those of the progress bar beside them"


@dataclass
class _Found:
    """The entries of a file by dialect, in order; of dictionaries without a step also the progress bar's number."""

    verl: list[dict[str, Any]] = field(default_factory=list)
    slime: list[dict[str, Any]] = field(default_factory=list)
    stepped: list[dict[str, Any]] = field(default_factory=list)
    trainer: list[tuple[dict[str, Any], int | None]] = field(default_factory=list)
    other: int = 0

    @property
    def entries(self) -> int:
        return len(self.verl) + len(self.slime) + len(self.stepped) + len(self.trainer)


def read(path: Path) -> Log:
    """The metrics of a console log. Raises LogImportError, OSError."""
    found = _scan(path)
    log = Log("console log", title=path.stem)
    for dialect, entries in (("verl", found.verl), ("slime", found.slime), ("", found.stepped)):
        if entries:
            log.kind = f"console log{f' of {dialect}' if dialect else ''}"
            for entry in entries:
                add(log, entry)
            if others := found.entries - len(entries):
                log.left.add(OTHERS, count=others)
            break
    else:
        if not found.trainer:
            raise LogImportError(f"{path}: no metrics in it: {ADVICE}")
        _number(found.trainer, log)
    if found.other:
        log.notes.append(f"{found.other} lines without metrics were skipped")
    return log


def is_one(path: Path) -> bool:
    """True for a file in which metrics stand as a trainer prints them."""
    try:
        found = _scan(path, _SNIFFED)
    except UnfitFileError:
        return False  # another file of the folder, and no log of that size could be read
    return bool(found.verl or found.slime or found.stepped or found.trainer)


def _scan(path: Path, most: int | None = None) -> _Found:
    """The entries of a file, or of its first `most` characters."""
    found, bar, read = _Found(), None, 0
    for line in _lines(path):
        read += len(line) + 1
        if most is not None and read > most:
            break
        if progress := _PROGRESS.findall(line):
            bar = int(progress[-1])
        if match := _VERL.search(line):
            found.verl.append({**_pairs(line[match.end() :]), "step": int(match[1])})
        elif (match := _SLIME.search(line)) and (entry := _dictionary(line, match.end())):
            step = _STEP_OF.get(match[1], "train/step" if match[1].endswith("step") else f"{match[1]}/step")
            found.slime.append({step: int(match[2]), **entry})
        elif entry := _dictionary(line, line.find("{")):
            if any(is_step(name) for name in entry):
                found.stepped.append(entry)
            elif not _TRAINER.isdisjoint(entry) or _SUMMARY in entry:
                found.trainer.append((entry, bar))
            else:
                found.other += 1
        elif line.strip() and not progress:
            found.other += 1
    return found


def _lines(path: Path) -> Iterator[str]:
    for chunk in files.text_lines(path, longest=_LONGEST):
        # A progress bar goes back to the beginning of its line; what is printed beside it stands there too.
        for line in chunk.rstrip("\n").split("\r"):
            plain = _COLOURS.sub("", line)
            repeated = _REPEATED.search(plain)
            yield plain if repeated is None else plain[: repeated.start()].rstrip()


def _pairs(text: str) -> dict[str, Any]:
    """`name:value - name:value`; a value is what stands after the last colon."""
    found: dict[str, Any] = {}
    for part in _SEPARATOR.split(_WRAPPED.sub(r"\1", text)):
        name, _, value = part.rpartition(":")
        if name := name.strip():
            found[name] = _value(value.strip())
    return found


def _value(value: object) -> object:
    if not isinstance(value, str):
        return value
    number = text_number(value)
    return value if number is None else number


def _dictionary(line: str, begin: int) -> dict[str, Any]:
    """The dictionary printed in a line from `begin` to the last brace, with at least one number; an empty one for
    anything else."""
    end = line.rfind("}") + 1
    if begin < 0 or end <= begin:
        return {}
    text = line[begin:end]
    plain = _WORD.sub(lambda match: f"'{match[1]}{match[2]}'", _WRAPPED.sub(r"\1", text))
    try:
        parsed = ast.literal_eval(plain)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return {}
    if not isinstance(parsed, Mapping) or not all(isinstance(name, str) for name in parsed):
        return {}
    # Transformers 5 prints its numbers as texts.
    entry = {name: _value(value) for name, value in parsed.items()}
    return entry if any(isinstance(value, (int, float)) for value in entry.values()) else {}


def _number(entries: list[tuple[dict[str, Any], int | None]], log: Log) -> None:
    """Steps for dictionaries without one: the progress bar's where it counts along, else the number of the line."""
    log.kind, log.counter, log.counted = "console log of the Hugging Face Trainer", "line", _LINES
    reports = [(entry, bar) for entry, bar in entries if _is_report(entry)]
    bars = [bar for _, bar in reports if bar is not None]
    by_bar = len(bars) == len(reports) > 0 and all(one < two for one, two in pairwise(bars))
    at = 0
    for entry, bar in entries:
        if _is_report(entry):
            at = bar if by_bar and bar is not None else at + 1
        add(log, entry, at)
    if by_bar:
        log.counter, log.counted = "progress bar", _BARS


def _is_report(entry: Mapping[str, Any]) -> bool:
    """True for a report of training; an evaluation and the summary at the end belong to the step before them."""
    return _SUMMARY not in entry and not any(name.startswith("eval_") for name in entry)
