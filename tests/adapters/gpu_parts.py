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


class _Absent(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        del path, target
        return ModuleSpec(fullname, self, is_package=True) if fullname.partition(".")[0] in NAMES else None

    def exec_module(self, module: types.ModuleType) -> None:
        def called(*_args: Any, **_kwargs: Any) -> Any:
            raise RuntimeError(f"{module.__name__} needs a GPU")

        def attribute(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return called

        module.__getattr__ = attribute  # type: ignore[method-assign]


def stand_in() -> None:
    """From now on they can be imported."""
    sys.meta_path.append(_Absent())
    if sys.version_info < (3, 12):
        typing.TypedDict = typing_extensions.TypedDict  # type: ignore[assignment]
