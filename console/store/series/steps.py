"""Steps, stored once for all series that have the same ones.

The metrics of a run come thirty to a frame, all at one step: a copy of the steps for each of them would be half of a
console's memory. A `StepBuffer` is shared by every series whose steps are its first n, and a series with other
steps (reported every tenth step, or late) gets a buffer of its own, which others like it share in turn.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Steps = npt.NDArray[np.int64]

FIRST = 256
"""Room of a new buffer; it doubles. What is not written yet costs no memory: the system maps pages when touched."""


class StepBuffer:
    """Strictly ascending steps; a series that uses it sees the first so many of them."""

    __slots__ = ("data", "last", "n", "users")

    def __init__(self, data: Steps | None = None) -> None:
        self.data: Steps = np.empty(FIRST, np.int64) if data is None else data
        self.n = 0 if data is None else len(data)
        self.last = int(self.data[self.n - 1]) if self.n else 0
        self.users = 0

    def append(self, step: int) -> None:
        """Add a step above all others."""
        self._reserve(self.n + 1)
        self.data[self.n] = self.last = step
        self.n += 1

    def extend(self, steps: Steps) -> None:
        """Add ascending steps above all others."""
        if len(steps):
            self._reserve(self.n + len(steps))
            self.data[self.n : self.n + len(steps)] = steps
            self.n, self.last = self.n + len(steps), int(steps[-1])

    def _reserve(self, n: int) -> None:
        if n > len(self.data):
            # A new buffer and not a resize in place: a view handed out earlier keeps what it saw.
            data = np.empty(max(n, 2 * self.n, FIRST), np.int64)
            data[: self.n] = self.data[: self.n]
            self.data = data


class StepPool:
    """The distinct step buffers of one store, by their first step: a search looks only at those that begin alike."""

    __slots__ = ("_buffers",)

    def __init__(self) -> None:
        self._buffers: dict[int, list[StepBuffer]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._buffers.values()))

    def _alike(self, first: int) -> list[StepBuffer]:
        """Every buffer whose first step is `first`, the oldest first."""
        return self._buffers.get(first, [])

    def start(self, step: int) -> StepBuffer:
        """A buffer whose first step is `step`."""
        for buffer in self._alike(step):
            buffer.users += 1
            return buffer
        return self._add(StepBuffer(), step)

    def extend(self, buffer: StepBuffer, n: int, step: int) -> StepBuffer:
        """The buffer for a series that has the first `n` steps of `buffer` and gets `step`, above all of them, next."""
        if n == buffer.n:
            buffer.append(step)
            return buffer
        if buffer.data[n] == step:
            return buffer
        prefix = buffer.data[:n]
        for other in self._alike(int(buffer.data[0])):
            if other.n > n and other.data[n] == step and np.array_equal(other.data[:n], prefix):
                return self._swap(buffer, other)
        own = StepBuffer(prefix.copy())
        self.release(buffer)
        return self._add(own, step)

    def follow(self, buffer: StepBuffer | None, n: int, steps: Steps) -> StepBuffer:
        """The buffer for a series that has the first `n` steps of `buffer` (None: has none) and gets `steps` next.

        They ascend and are above those.
        """
        alike = self._alike(int(steps[0] if buffer is None or n == 0 else buffer.data[0])) if len(steps) else []
        others = [other for other in alike if other is not buffer]
        for candidate in (*([] if buffer is None else [buffer]), *others):
            both = min(candidate.n - n, len(steps))
            if both < 0 or (both == 0 and candidate is not buffer):
                continue
            prefix = candidate is buffer or buffer is None or np.array_equal(candidate.data[:n], buffer.data[:n])
            if prefix and np.array_equal(candidate.data[n : n + both], steps[:both]):
                candidate.extend(steps[both:])
                return candidate if candidate is buffer else self._swap(buffer, candidate)
        own = StepBuffer(np.empty(0, np.int64) if buffer is None else buffer.data[:n].copy())
        own.extend(steps)
        if buffer is not None:
            self.release(buffer)
        return self._keep(own)

    def insert(self, buffer: StepBuffer, n: int, at: int, step: int) -> StepBuffer:
        """The buffer for a series that has the first `n` steps of `buffer` and gets `step` as its `at`-th."""
        steps = np.insert(buffer.data[:n], at, step)
        for other in self._alike(int(steps[0])):
            if other.n > n and other.data[at] == step and np.array_equal(other.data[: n + 1], steps):
                return self._swap(buffer, other)
        self.release(buffer)
        return self._keep(StepBuffer(steps))

    def _add(self, buffer: StepBuffer, step: int) -> StepBuffer:
        buffer.append(step)
        return self._keep(buffer)

    def _keep(self, buffer: StepBuffer) -> StepBuffer:
        buffer.users = 1
        self._buffers.setdefault(int(buffer.data[0]), []).append(buffer)
        return buffer

    def _swap(self, old: StepBuffer | None, new: StepBuffer) -> StepBuffer:
        new.users += 1
        if old is not None:
            self.release(old)
        return new

    def release(self, buffer: StepBuffer) -> None:
        """A series does not use this buffer any more."""
        buffer.users -= 1
        first = int(buffer.data[0])
        if buffer.users == 0 and buffer in (alike := self._alike(first)):
            alike.remove(buffer)
            if not alike:
                del self._buffers[first]
