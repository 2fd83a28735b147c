"""What stands in a process for the parts of frameworks that are built for a GPU alone: importable, and no more.

SkyRL is written for Python 3.12, where pydantic takes typing.TypedDict; on 3.11 it takes that of typing_extensions.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

import typing_extensions

NAMES = frozenset({"flash_attn", "ring_flash_attn"})


class _Nothing:
    """A name of such a module: it may stand in an annotation, and a call fails."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> _Nothing:
        return _Nothing(f"{self._name}.{name}")

    def __or__(self, other: object) -> _Nothing:
        return self

    __ror__ = __or__

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError(f"{self._name} is not here")


class _Absent(MetaPathFinder, Loader):
    def __init__(self, names: frozenset[str]) -> None:
        self.names = names

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        del path, target
        return (
            ModuleSpec(fullname, self, is_package=True) if {fullname, fullname.partition(".")[0]} & self.names else None
        )

    def exec_module(self, module: types.ModuleType) -> None:
        def attribute(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return _Nothing(f"{module.__name__}.{name}")

        module.__getattr__ = attribute  # type: ignore[method-assign]


def stand_in(*more: str) -> None:
    """From now on they can be imported, and so can `more` packages, which a test does not need."""
    sys.meta_path.insert(0, _Absent(NAMES.union(more)))
    if sys.version_info < (3, 12):
        typing.TypedDict = typing_extensions.TypedDict
