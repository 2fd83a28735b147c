"""What one engine has said in a run, taken from the run's journal: to be said again, in the same order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, cast

import msgspec

from driftline import bounded_file
from driftline.frames import (
    TERMINAL,
    Ack,
    AckState,
    Command,
    EngineFix,
    EngineState,
    FixState,
    Frame,
    FrameError,
    Stamped,
    Verb,
)
from driftline.journal import records
from driftline.rundir import RunDir

RECORDING_BYTES: Final = 16 << 20
"""Most bytes of a recording's file."""


class Moment(msgspec.Struct, frozen=True, array_like=True):
    """A frame that the engine sent unasked, `at` seconds after its first."""

    at: float
    frame: Frame


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What the engine sent on a command, from the first acknowledgement to the last; ids are those of the recording."""

    verb: Verb
    args: dict[str, str]
    frames: tuple[Frame, ...]


class Recording(msgspec.Struct, frozen=True):
    """States and fixes as one engine reported them, and its answers to commands, each in the order of the run.

    `source` says what was recorded, in words.
    """

    engine: str
    moments: tuple[Moment, ...] = ()
    answers: tuple[Answer, ...] = ()
    source: str = ""

    @classmethod
    def of(cls, stamped: Iterable[Stamped], engine: str, source: str = "") -> Recording:
        """The recording of an engine out of frames as the hub stamped them."""
        moments: list[Moment] = []
        asked: dict[str, Command] = {}
        given: dict[str, list[Frame]] = {}
        answers: list[Answer] = []
        began: float | None = None
        for one in stamped:
            try:
                frame = one.frame()
            except FrameError:
                continue
            if isinstance(frame, Command):
                asked[frame.id] = frame
            if one.producer != engine:
                continue
            began = one.time if began is None else began
            match frame:
                case Ack() if (command := asked.get(frame.id)) is not None:
                    own = _own_ack(frame, engine)
                    given.setdefault(frame.id, []).append(own)
                    if own.state in TERMINAL:
                        answers.append(Answer(command.verb, command.args, tuple(given.pop(frame.id))))
                case EngineState():
                    moments.append(Moment(one.time - began, frame))
                case FixState() if (report := _own_report(frame, engine)) is not None:
                    # What changes while a command is carried out is a part of the answer to it.
                    if given:
                        next(iter(given.values())).append(report)
                    else:
                        moments.append(Moment(one.time - began, report))
                case _:
                    pass
        return cls(engine, tuple(moments), tuple(answers), source)

    @classmethod
    def of_run(cls, run: RunDir, engine: str, source: str = "") -> Recording:
        """The recording of an engine of a run on this machine's disk. Raises ValueError where it has said nothing."""
        made = cls.of(records.read(run.journal), engine, source or f"{engine} of run {run.id}")
        if not made.moments:
            raise ValueError(f"{run.path}: its journal has nothing of an engine '{engine}'")
        return made

    @classmethod
    def read(cls, path: Path) -> Recording:
        """A recording from its file. Raises OSError, ValueError."""
        try:
            return msgspec.json.decode(bounded_file.read(path, RECORDING_BYTES), type=Recording)
        except msgspec.MsgspecError as error:
            raise ValueError(f"{path}: not the recording of an engine: {error}") from error

    def write(self, path: Path) -> None:
        """Write it to a file, as JSON. Raises OSError."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))

    def answer(self, verb: Verb, args: dict[str, str]) -> Answer | None:
        """The first answer to such a command: with these arguments, else, for a verb without a choice, with any."""
        same = [one for one in self.answers if one.verb == verb]
        exact = next((one for one in same if one.args == args), None)
        return exact if exact is not None or verb == "fix.set" else next(iter(same), None)


def as_of(frame: Frame, engine: str, time: float, command: str = "") -> Frame:
    """A frame of a recording under another name, at another time, for another command."""
    match frame:
        case EngineState():
            return msgspec.structs.replace(frame, engine=engine, time=time)
        case FixState():
            mine = tuple(msgspec.structs.replace(one, engine=engine) for one in frame.engines)
            return msgspec.structs.replace(frame, engines=mine, time=time)
        case Ack():
            return msgspec.structs.replace(frame, id=command or frame.id, time=time)
        case _:
            return frame


def _own_ack(ack: Ack, engine: str) -> Ack:
    """An acknowledgement as the engine gave it: in the journal it is progress of the whole command."""
    state = ack.data.get("state")
    if state is None:
        return msgspec.structs.replace(ack, detail=ack.detail.removeprefix(engine).removeprefix(": "))
    data = {key.removeprefix(f"{engine}."): one for key, one in ack.data.items() if key.startswith(f"{engine}.")}
    return Ack(ack.id, cast(AckState, state), ack.time, str(ack.data.get("detail", "")), data)


def _own_report(state: FixState, engine: str) -> FixState | None:
    """A fix as the engine reported it for itself: in the journal it is merged with the reports of all others."""
    mine: Sequence[EngineFix] = [one for one in state.engines if one.engine == engine]
    if not mine:
        return None
    return FixState(state.fix, mine[0].effective, 0, "", state.time, mine[0].how, tuple(mine))
