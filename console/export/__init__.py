"""Tables of a run: as Polars frames, as files, and through SQL. `import console.export` is the Python interface.

The names below load on first use (`console.export.api`), so that importing one part of this room does not import all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from console.export.api import (
        FORMATS,
        ExportError,
        ExportReport,
        export,
        frame,
        open_run,
        query,
        save,
        scan,
        source_of,
        through_hub,
    )

__all__ = [
    "FORMATS",
    "ExportError",
    "ExportReport",
    "export",
    "frame",
    "open_run",
    "query",
    "save",
    "scan",
    "source_of",
    "through_hub",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        from console.export import api

        return getattr(api, name)
    raise AttributeError(f"module 'console.export' has no attribute '{name}'")
