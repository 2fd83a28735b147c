"""Token pairs from the files that trainers write of every step.

prime-rl writes `token_exports/step_N/rank_R.jsonl` (with `trainer.enable_token_export`), a sequence a line, and a file
`STABLE` beside it once a step is whole; NeMo-RL writes `train_data_stepN.jsonl`, a sample a line. Both are read line by
line. Fields and their meaning were read in prime-rl 0.8.0 (`trainer/rl/token_export.py`, schema 1) and in NeMo-RL
7ea279ab (`algorithms/grpo.py`, `utils/logger.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from console.importing.rows import LeftOut, LogImportError, SeveralRunsError
from driftline.pairs.pairs import Collector, Pairs, Sampled
from driftline.text import sanitize

STABLE: Final = "STABLE"
EXPORTS: Final = "token_exports"
NO_SAMPLE: Final = "lines that are no token sequence of a known form"
NO_MASK: Final = "sequences without a mask: tokens whose engine logprob is 0.0 are taken for the prompt's"
LONGEST: Final = 256 * 1024 * 1024
"""Most bytes of a line; a sequence of a million tokens takes some 150 MB in prime-rl's form."""
NO_ID: Final = -1
"""Token id where the file has none."""
_DEEPEST: Final = 6
_STEP: Final = re.compile(r"step_(\d{1,15})")
NEMO_STEP: Final = re.compile(r"train_data_step(\d{1,15})\.jsonl")

_Number = float | None


class _PrimeRL(msgspec.Struct):
    token_ids: list[int]
    loss_mask: list[bool]
    inference_logprobs: list[_Number]
    trainer_logprobs: list[_Number]
    rewards: list[_Number] | None = None
    env_name: str | None = None


class _NeMo(msgspec.Struct):
    """A sample; every value stands in a list of one, as the logger slices a batch."""

    generation_logprobs: list[_Number | list[_Number]]
    prev_logprobs: list[_Number | list[_Number]]
    token_ids: list[int | list[int]] | None = None
    token_loss_mask: list[_Number | list[_Number]] | None = None
    sample_loss_mask: list[_Number] | _Number = 1.0
    rewards: list[_Number] | _Number = None
    input_lengths: list[_Number] | _Number = None


@dataclass(frozen=True, slots=True)
class TokenStep:
    """All pairs of one trainer step. `framework` is who wrote them, `time` when, in Unix seconds."""

    step: int
    pairs: Pairs
    framework: str
    time: float
    left_out: LeftOut


class TokenFiles:
    """The token files below a folder; every whole step is given once, in the order of steps."""

    def __init__(self, root: Path, only: str | None = None) -> None:
        self._root, self._only = root, only
        self._done: set[Path] = set()
        self._sizes: dict[Path, int] = {}

    def found(self) -> bool:
        """True where there is any token file. Raises OSError."""
        return any(self._folders())

    def poll(self, ended: bool = False) -> Iterator[TokenStep]:
        """Steps that became whole since the last call; `ended`: nothing is written any more.

        Raises SeveralRunsError for files of several runs, OSError.
        """
        exports, dumps = self._folders()
        self._one_run(exports, dumps)
        for folder in exports:
            for step, path in sorted(_steps(folder, _STEP)):
                if path not in self._done and (path / STABLE).exists():
                    self._done.add(path)
                    yield _read(step, sorted(path.glob("rank_*.jsonl")), "prime-rl", _prime_rl)
        for folder in dumps:
            found = sorted(_steps(folder, NEMO_STEP))
            for step, path in found:
                if path not in self._done and (ended or step < found[-1][0] or self._rests(path)):
                    self._done.add(path)
                    yield _read(step, [path], "NeMo-RL", _nemo)

    def _rests(self, path: Path) -> bool:
        """True where a file has not grown since the last call: there is no mark of a whole one."""
        size = path.stat().st_size
        before = self._sizes.get(path)
        self._sizes[path] = size
        return size > 0 and size == before

    def _folders(self) -> tuple[list[Path], list[Path]]:
        """Folders of prime-rl's exports, and folders with NeMo-RL's files."""
        exports: list[Path] = []
        dumps: list[Path] = []
        for here, below, names in os.walk(self._root):
            folder = Path(here)
            if folder.name == EXPORTS:
                exports.append(folder)
                below.clear()
                continue
            if any(NEMO_STEP.fullmatch(name) for name in names):
                dumps.append(folder)
            deep = len(folder.relative_to(self._root).parts) >= _DEEPEST
            below[:] = [] if deep else sorted(one for one in below if not one.startswith("."))
        return exports, dumps

    def _one_run(self, exports: list[Path], dumps: list[Path]) -> None:
        for folders in (exports, dumps):
            if self._only is not None:
                folders[:] = [one for one in folders if self._only in (one.name, *one.relative_to(self._root).parts)]
            if len(folders) > 1:
                shown = ", ".join(sanitize(one.relative_to(self._root).as_posix()) for one in folders[:6])
                raise SeveralRunsError(
                    f"{self._root}: token files of {len(folders)} runs in it: {shown}; name one by its path, or with "
                    "--only NAME"
                )


def _steps(folder: Path, form: re.Pattern[str]) -> Iterator[tuple[int, Path]]:
    for entry in os.scandir(folder):
        if found := form.fullmatch(entry.name):
            yield int(found[1]), Path(entry.path)


def _read(step: int, paths: list[Path], framework: str, parse: Callable[[bytes, LeftOut], Sampled]) -> TokenStep:
    collector, left = Collector(), LeftOut()
    for line in _lines(paths):
        try:
            collector.add(parse(line, left))
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
            left.add(NO_SAMPLE)
    pairs = collector.pairs()
    time = max((path.stat().st_mtime for path in paths), default=0.0)
    for reason, count in pairs.left_out.items():
        left.add(reason, count=count)
    return TokenStep(step, pairs, framework, time, left)


def _lines(paths: list[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while line := file.readline(LONGEST + 1):
                if len(line) > LONGEST:
                    raise LogImportError(f"{path}: a line of more than {LONGEST} bytes")
                if line.strip():
                    yield line


_prime_decoder: Final = msgspec.json.Decoder(_PrimeRL)
_nemo_decoder: Final = msgspec.json.Decoder(_NeMo)


def _prime_rl(line: bytes, _left: LeftOut) -> Sampled:
    one = _prime_decoder.decode(line)
    rewards = [reward for reward in one.rewards or () if reward is not None]
    return Sampled(
        one.token_ids,
        one.inference_logprobs,
        one.trainer_logprobs,
        one.loss_mask,
        reward=rewards[-1] if rewards else float("nan"),
        prompt=one.env_name or "",
    )


def _nemo(line: bytes, left: LeftOut) -> Sampled:
    one = _nemo_decoder.decode(line)
    rollout = _row(one.generation_logprobs)
    if one.token_loss_mask is not None:
        mask = _row(one.token_loss_mask) > 0
    else:
        left.add(NO_MASK)
        mask = rollout != 0.0
    length = _scalar(one.input_lengths)
    mask &= np.arange(mask.size) < (mask.size if length is None else int(length))
    # A sample that the loss leaves out has been sampled all the same: its pairs say as much of the engine.
    reward = _scalar(one.rewards)
    return Sampled(
        np.full(rollout.size, NO_ID) if one.token_ids is None else _row(one.token_ids).astype(np.int64),
        rollout,
        _row(one.prev_logprobs),
        mask,
        reward=float("nan") if reward is None else reward,
    )


def _row(value: object) -> np.ndarray:
    """A list of numbers, or one in a list of one, as float64 [T]. Raises ValueError for another shape."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 1:
        raise ValueError(f"{array.ndim} dimensions, one sample has 1")
    return array


def _scalar(value: list[_Number] | _Number) -> _Number:
    if isinstance(value, list):
        return value[0] if len(value) == 1 else None
    return value
