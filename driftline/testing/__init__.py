"""For tests of adapters and of programs that speak to a run: a hub in this process, a recorded engine, a clock.

Needs what a producer needs: msgspec, pyzmq and numpy. Nothing of it is meant for a run that matters.
"""

from __future__ import annotations

from driftline.testing.clock import Clock
from driftline.testing.hub import InProcessHub
from driftline.testing.recorded_engine import RecordedEngine
from driftline.testing.recording import Answer, Moment, Recording
from driftline.testing.waiting import PATIENCE, until

__all__ = ["PATIENCE", "Answer", "Clock", "InProcessHub", "Moment", "RecordedEngine", "Recording", "until"]
