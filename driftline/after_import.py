"""Acting on a framework's module as soon as a process imports it, so that none imports it for our sake alone.

Frameworks load their plugins in processes that need nothing of them: vLLM in the one that looks at a model's class,
verl in every worker. There the framework's own module would be seconds of imports for nothing.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
else:
    # What they would give is not needed here, and their module brings those of archives and temporary files along.
    Loader = MetaPathFinder = object

Act = Callable[[ModuleType], None]


class _Finder(MetaPathFinder):
    """Finds what the finders after it find, and has the module acted on once it has been executed."""

    def __init__(self) -> None:
        self.acts: dict[str, list[Act]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target  # the finders after this one are asked anew
        acts = self.acts.pop(fullname, None)  # gone from here, so that the search below goes past this finder
        if acts is None:
            return None
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        spec.loader = _Acting(spec.loader, acts)
        return spec


class _Acting(Loader):
    """A loader that acts on the module it has loaded, and then is as if it had never been."""

    def __init__(self, loader: Loader, acts: Sequence[Act]) -> None:
        self._loader, self._acts = loader, acts

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None, "importlib sets it before"
        module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        for act in self._acts:
            act(module)


_finder = _Finder()


def after_import(name: str, act: Act) -> None:
    """Call `act` with the module of this name: at once where it is imported, else right after its import.

    A module that is just being imported counts as not yet there only if nothing of it has been executed; `act` has to
    find what it needs, or do nothing. What `act` raises would be raised by the import: it must raise nothing.
    """
    module = sys.modules.get(name)
    if module is not None:
        act(module)
        return
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.acts.setdefault(name, []).append(act)
