"""Why an engine is paused. Three reasons, each with its own end; it runs only when none is left."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class PauseReasons:
    """`paused` is an operator's, ended by a resume or by its lease; `held` a sync's that waits for `release`;

    `damaged` says which load left half-loaded weights behind, and is ended by nothing but a good sync.
    `lease_ends` is a time of the monotonic clock; 0 is a pause without a lease.
    """

    paused: bool = False
    lease_ends: float = 0.0
    held: bool = False
    damaged: str = ""

    @property
    def active(self) -> bool:
        """Whether any reason is left."""
        return self.paused or self.held or bool(self.damaged)

    def pause(self, lease_ends: float) -> bool:
        """An operator pauses, or renews the lease; whether that is a new pause."""
        new = not self.paused
        self.paused, self.lease_ends = True, lease_ends
        return new

    def resume(self) -> bool:
        """The operator's pause ends; whether there was one."""
        was, self.paused, self.lease_ends = self.paused, False, 0.0
        return was

    def release(self) -> bool:
        """The sync's hold ends; whether there was one."""
        was, self.held = self.held, False
        return was

    def lease_left(self, now: float) -> float | None:
        """Seconds until the lease runs out, 0 when it has; None without a lease."""
        return max(0.0, self.lease_ends - now) if self.paused and self.lease_ends else None
