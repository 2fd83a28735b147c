"""From the operator's configuration to the arguments of the app."""

from __future__ import annotations

import os
from typing import TypedDict

from console.settings.file import Settings
from console.tui.command.history import History, default_path


class Options(TypedDict):
    """The part of the configuration that the app takes."""

    theme: str
    keys: dict[str, str]
    smoothing: float
    history: History


def app_options(settings: Settings) -> Options:
    """As `ConsoleApp` takes them; the history is the one on disk."""
    return Options(
        theme=settings.theme,
        keys=settings.keys,
        smoothing=settings.smoothing,
        history=History(default_path(os.environ)),
    )
