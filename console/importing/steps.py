"""Which step the numbers of a log belong to, and the rows by step that follow. Pure.

A name is placed by the first of these that its entry has: the step asked for; the step that the run itself declared
for it (W&B's `define_metric`); a logged global step; a step logged under the name's own prefix (`rollout/step` for
`rollout/raw_reward`); another logged step; the file's own step. Names of one run may have different steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import islice, pairwise
from typing import Final

from console.importing.rows import Log, LogImportError, Record, Row
from driftline.text import plural, sanitize

GLOBAL: Final = ("train/global_step", "trainer/global_step", "training/global_step", "global_step")
"""Steps of the whole training: HF Trainer, Lightning, verl, and others."""
OTHERS: Final = (
    "train/step", "rollout/step", "training_step", "step", "current_steps", "global_step/max_steps",
    "train/global_step/max_steps", "stats/completed_steps", "iteration", "iter", "update", "epoch_step",
)  # fmt: skip
"""Further steps, the surest first: slime, open-instruct, LLaMA-Factory, ms-swift ("12/40"), PipelineRL."""
STEPS: Final = GLOBAL + OTHERS
COUNTED: Final = (
    "no step is logged: the steps are W&B's own (_step), the number of the log call unless the trainer gives it"
)
COUNTER: Final = "_step"
"""W&B's own step: the number of the log call, unless the trainer gives it."""
LAST_STEP: Final = 2**53 - 1
"""Largest step of a frame: up to it every whole number is a float64 of its own."""

NO_STEP: Final = "entries without a step"
BAD_STEP: Final = "entries whose step is no whole number from 0 to 2^53 - 1"
AGAIN: Final = "numbers that the log has again for the same step (the later one counts)"

_KNOWN: Final = frozenset(STEPS)
_LEAVES: Final = ("step", "global_step")
_SURE: Final = frozenset(STEPS) - {"stats/completed_steps", "iteration", "iter", "update", "epoch_step"}
"""Names that mean a step; `update` may as well be seconds an update, and `timing/step` seconds a step."""
_MOST, _LONGEST = 20, 40
"""Most names in a message, and most characters of each."""


def whole(value: float | str) -> int | None:
    """A step from a number, or from a text such as "12" or "12/40"; None where it is no whole number in range."""
    if isinstance(value, str):
        value = float(value.split("/")[0])
    return int(value) if 0 <= value <= LAST_STEP and value == int(value) else None


def place(log: Log, wanted: str | None = None) -> None:
    """Fill in `rows` and `axes` of a log from its records. Raises LogImportError where no entry has a step."""
    axes = _Axes(log, wanted)
    rows: list[Row] = []
    placed: dict[str, dict[str, None]] = {}
    for record in log.records:
        for axis, step, names in axes.split(record):
            if names:
                rows.append(Row(step, record.time, {name: record.values[name] for name in names}))
                for name in names:
                    placed.setdefault(name, {})[axis] = None
    if not rows and axes.seen and not log.left.counts[NO_STEP]:
        raise LogImportError(f"contains no number ({log.kind})")
    if not rows:
        raise LogImportError(_no_step(log, wanted))
    log.rows = in_order(rows, log)
    log.axes = {name: " or ".join(used) for name, used in placed.items()}
    _drop_copies_of_the_step(log)
    if axes.carried:
        log.notes.append(f"{axes.carried} numbers are logged without a step: each is at the last step before it")
    if log.counted and wanted is None and log.counter in log.axes.values():
        log.notes.append(log.counted)


def several(log: Log) -> str:
    """A sentence for a log whose names have different steps, "" for one with a single step."""
    counts = Counter(log.axes.values())
    if len(counts) < 2:
        return ""
    shown = "; ".join(f"{plural(count, 'name')} by {sanitize(axis)}" for axis, count in counts.most_common())
    return f"the log has several steps, and each name keeps its own: {shown} (--step NAME takes one)"


class _Axes:
    """Which step each name of a log is placed by."""

    def __init__(self, log: Log, wanted: str | None) -> None:
        self._log = log
        self._wanted = wanted
        self.carried = 0
        logged = {name for record in log.records for name in (*record.values, *record.texts)}
        self._usable = {wanted} if wanted is not None else _usable(log, logged)
        self._declared = (
            []
            if wanted is not None
            else [(pattern, step) for pattern, step in log.declared if step in logged or step == log.counter]
        )
        self._same = _copies(log, self._usable)
        self._declarations: dict[str, str | None] = {}
        self._chosen: dict[tuple[str, frozenset[str]], str | None] = {}
        self._last: dict[str, int] = {}

    @property
    def seen(self) -> bool:
        """True once an entry had a step, with a number beside it or not."""
        return bool(self._last)

    def split(self, record: Record) -> Iterator[tuple[str, int, list[str]]]:
        """The names of a record by their step: (name of the step, its value, the names)."""
        present: dict[str, float | str] = {
            name: value for name, value in record.values.items() if name in self._usable
        } | {name: text for name, text in record.texts.items() if name in self._usable}
        if record.counter is not None and self._wanted in (None, self._log.counter):
            present.setdefault(self._log.counter, record.counter)
        groups: dict[str | None, list[str]] = {}
        names = frozenset(present)
        for name in record.values:
            if (key := (name, names)) not in self._chosen:
                self._chosen[key] = self._axis(name, present)
            axis = self._chosen[key]
            groups.setdefault(axis if axis is not None else self._before(name), []).append(name)
        for axis, group in groups.items():
            yield from self._at(axis, [name for name in group if name != axis], present)

    def _axis(self, name: str, present: Mapping[str, float | str]) -> str | None:
        counter = self._log.counter
        if self._wanted is not None:
            return self._wanted if self._wanted in present else None
        if (declared := self._declaration(name)) is not None:
            return declared
        if not self._log.counted and counter in present:
            return counter
        found = _best(name, (one for one in present if one != counter))
        return found if found is not None or self._usable else counter if counter in present else None

    def _declaration(self, name: str) -> str | None:
        if name not in self._declarations:
            globs = [(len(one), step) for one, step in self._declared if "*" in one and fnmatchcase(name, one)]
            self._declarations[name] = dict(self._declared).get(name) or (max(globs)[1] if globs else None)
        return self._declarations[name]

    def _before(self, name: str) -> str | None:
        """The step, given by an earlier entry, that a name without one is placed by.

        W&B's calls are in the order of time, so that a number belongs to the last step before it.
        """
        return _best(name, self._last) if self._log.counter == COUNTER and self._wanted is None else None

    def _at(
        self, axis: str | None, names: list[str], present: Mapping[str, float | str]
    ) -> Iterator[tuple[str, int, list[str]]]:
        if axis is not None and axis in present:
            if (step := whole(present[axis])) is None:
                self._log.left.add(BAD_STEP, axis)
                return
            self._last[axis] = step
            yield self._same.get(axis, axis), step, names
        elif axis is not None and axis in self._last and self._wanted is None:
            self.carried += len(names)
            yield self._same.get(axis, axis), self._last[axis], names
        elif names:
            self._log.left.add(NO_STEP, names[0])


def _usable(log: Log, logged: Iterable[str]) -> set[str]:
    """The logged names under which steps stand."""
    found = {step for _, step in log.declared}
    for name in filter(is_step, logged):
        values = [record.texts.get(name, record.values.get(name)) for record in log.records]
        steps = [whole(value) for value in values if value is not None]
        valid = [step for step in steps if step is not None]
        if form(name) in _SURE:
            good = bool(valid)
        else:
            back = sum(one > two for one, two in pairwise(valid))
            good = len(valid) == len(steps) and max(valid) > min(valid) and back <= len(valid) // 10
        if good:
            found.add(name)
    if not found and all(record.counter is None for record in log.records):
        found = {name for name in logged if form(name) in _KNOWN}
    return found & set(logged)


def _copies(log: Log, steps: Iterable[str]) -> dict[str, str]:
    """The steps that are another one under a second name: in every entry that has both they are equal."""
    found: dict[str, str] = {}
    order = {name: at for at, name in enumerate(STEPS)}
    ranked = sorted(steps, key=lambda step: (order.get(form(step), len(order)), step))
    for at, step in enumerate(ranked):
        for first in ranked[:at]:
            both = [
                (record.values[first], record.values[step])
                for record in log.records
                if first in record.values and step in record.values
            ]
            if both and first not in found and all(one == two for one, two in both):
                found[step] = first
                break
    return found


def _best(name: str, steps: Iterable[str]) -> str | None:
    """The surest step for a name; one that stands under another prefix and is of no known name is none of it."""
    own = [f"{prefix}/{leaf}" for prefix in _prefixes(name) for leaf in _LEAVES]
    by_form = {form(step): step for step in steps}
    return next((by_form[one] for one in (*GLOBAL, *own, *OTHERS) if one in by_form), None)


def form(name: str) -> str:
    """A step's name as it is compared: `Step`, `Global Step` and `global_step` are read alike."""
    return name.strip().lower().replace(" ", "_").replace(".", "/")


def is_step(name: str) -> bool:
    """True for a name under which a step may stand."""
    plain = form(name)
    return plain in _KNOWN or plain.rpartition("/")[2] in _LEAVES


def _prefixes(name: str) -> Iterator[str]:
    parts = form(name).split("/")
    for end in range(len(parts) - 1, 0, -1):
        yield "/".join(parts[:end])


def in_order(rows: Iterable[Row], log: Log) -> list[Row]:
    """One row a step, ascending; it begins anew where the log goes back (a run resumed from a checkpoint)."""
    lives: list[dict[int, Row]] = [{}]
    newest: dict[str, int] = {}
    for row in rows:
        if any(newest.get(name, row.step) > row.step for name in row.values):
            log.notes.append(
                f"the log goes back from step {max(lives[-1])} to {row.step}: where both have a step, the later counts"
            )
            lives.append({})
            newest = {}
        newest |= dict.fromkeys(row.values, row.step)
        at = lives[-1].setdefault(row.step, Row(row.step, row.time, {}))
        again = [
            name
            for name, value in row.values.items()
            if name in at.values and at.values[name] != value and value == value
        ]
        if again:
            log.left.add(AGAIN, again[0], len(again))
        at.values |= row.values
        at.time = max(at.time, row.time)
    if len(lives) > _MOST_LIVES:
        log.notes[-(len(lives) - 1) :] = [
            f"the log goes back {len(lives) - 1} times: of a step that is there again the later counts"
        ]
    return [life[step] for life in lives for step in sorted(life)]


_MOST_LIVES: Final = 4


def _drop_copies_of_the_step(log: Log) -> None:
    """A further name of the step with the same numbers says nothing more."""
    other = {name for row in log.rows for name, value in row.values.items() if is_step(name) and value != row.step}
    for row in log.rows:
        row.values = {name: value for name, value in row.values.items() if not is_step(name) or name in other}
    log.axes = {name: axis for name, axis in log.axes.items() if not is_step(name) or name in other}


def _no_step(log: Log, wanted: str | None) -> str:
    names = dict.fromkeys(name for record in log.records for name in (*record.values, *record.texts))
    looked = f"'{sanitize(wanted)}'" if wanted is not None else f"any of {', '.join(STEPS)}"
    shown = ", ".join(sanitize(name)[:_LONGEST] for name in islice(names, _MOST)) or "no number"
    bad = log.left.counts[BAD_STEP]
    wrong = f" ({bad} {BAD_STEP})" if bad else ""
    return f"no entry has a step under {looked}{wrong}; it has: {shown}"
