"""Driftline's contract: the frames, names and sockets that trainers, engines and consoles share.

`from driftline import Probe` is all that another trainer needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from driftline.producer.probe import Probe

__all__ = ["Probe", "__version__"]

__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    # Loaded on first use: `driftline --help` must not pay for zmq and numpy.
    if name == "Probe":
        from driftline.producer.probe import Probe

        return Probe
    raise AttributeError(f"module 'driftline' has no attribute '{name}'")
