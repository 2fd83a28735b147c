"""The newest state of a run and of everything in it that has a name, for consoles that come: bounded by names.

A name is what a producer chooses. The engine, fix or effect that was reported longest ago is forgotten for a new one
once there are too many; the journal has them all.
"""

from __future__ import annotations

from driftline.frames import Effect, EngineState, FixState, Frame, Lease, RunState

Key = tuple[str, str]
"""What it is (run, writer, engine, fix, effect) and its name."""


class NewestStates:
    """Records of the newest frames of each name, at most `most` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[Key, tuple[int, bytes]] = {}
        self.generations: dict[str, int] = {}
        """By fix: how often it was asked for."""

    def remember(self, frame: Frame, seq: int, record: bytes) -> str:
        """Take over a frame and its record; what there are too many of since, "" as a rule."""
        match frame:
            case RunState():
                return self._keep(("run", ""), seq, record)
            case Lease():
                return self._keep(("writer", ""), seq, record)
            case EngineState(engine=engine):
                return self._keep(("engine", engine), seq, record)
            case FixState(fix=fix, generation=generation):
                self.generations[fix] = generation
                return self._keep(("fix", fix), seq, record)
            case Effect(changes=changes):
                over = [self._keep(("effect", fix), seq, record) for fix, _, _ in changes]
                return next(filter(None, over), "")
        return ""

    def _keep(self, key: Key, seq: int, record: bytes) -> str:
        known = self._kept.pop(key, None) is not None  # the newest stand last
        self._kept[key] = seq, record
        if known or len(self._kept) <= self._most:
            return ""
        oldest = next(one for one in self._kept if one[0] not in ("run", "writer"))
        del self._kept[oldest]
        if oldest[0] == "fix":
            self.generations.pop(oldest[1], None)
        return f"{oldest[0]}s"

    def records(self) -> list[bytes]:
        """Every record once, in the order of the journal."""
        return [record for _, record in sorted(set(self._kept.values()))]

    def save(self) -> tuple[list[tuple[str, str, int, bytes]], dict[str, int]]:
        """States as (what, name, number, record), the longest unseen first, and the generations of the fixes."""
        return [(what, name, seq, record) for (what, name), (seq, record) in self._kept.items()], self.generations

    def load(self, states: list[tuple[str, str, int, bytes]], generations: dict[str, int]) -> None:
        """Start from what `save` gave."""
        self._kept = {(what, name): (seq, record) for what, name, seq, record in states}
        self.generations = dict(generations)
