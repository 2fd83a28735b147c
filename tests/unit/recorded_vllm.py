"""Objects that have exactly what a version of vLLM was recorded with: names, and signatures that a call has to fit.

They compute nothing: each method calls what the test gives for it. `scripts/vllm_interface.py` makes the records.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).parent / "data" / "vllm_interfaces"
V0 = FOLDER / "0.8.5.post2.json"


class Vllm:
    """One version, as it was recorded."""

    def __init__(self, path: Path) -> None:
        data = json.loads(path.read_text())
        self.version: str = data["vllm"]
        self._classes: dict[str, dict[str, Any] | None] = data["classes"]

    def has(self, place: str, name: str = "") -> bool:
        """Whether there is a class (`module:Class`) and, where one is named, a member of it."""
        found = self._classes[place]
        return found is not None and (not name or name in self._members(place))

    def make_class(self, place: str, **members: Any) -> type[Any]:
        """A class of that name with those of the members that this version has; functions become its methods.

        A method without a function is one that must not be called.
        """
        found = self._classes[place]
        assert found is not None, f"vLLM {self.version} has no {place}"
        module, _, name = place.partition(":")
        made: dict[str, Any] = {"__module__": module}
        for method in found["methods"].split():
            if method not in ("__init__", "__call__") and (method in members or method in found["signatures"]):
                signature = found["signatures"].get(method)
                made[method] = _method(method, signature, members.get(method))
        for key in found["properties"].split():
            if key in members:
                made[key] = property(_always(members[key]))
        if "__init__" in members:
            made["__init__"] = _method("__init__", found["signatures"]["__init__"], members["__init__"])
        if not found["own_loop"]:
            made.pop("run_busy_loop", None)
        return type(name, (), made)

    def make(self, place: str, **members: Any) -> Any:
        """An object of such a class; what is no method becomes an attribute, where this version has it."""
        one = self.make_class(place, **members)()
        found = self._classes[place]
        assert found is not None
        for key in found["attributes"].split():
            if key in members:
                setattr(one, key, members[key])
        return one

    def parameters(self, place: str, method: str) -> list[str]:
        """Names of a method's parameters, self among them."""
        found = self._classes[place]
        assert found is not None
        return list(_signature(found["signatures"][method]).parameters)

    def returned(self, place: str, method: str) -> str:
        """The annotation of what a method returns."""
        found = self._classes[place]
        assert found is not None
        return str(found["signatures"][method].rpartition(" -> ")[2])

    def names(self, place: str) -> set[str]:
        """Everything that a class has."""
        return self._members(place)

    def _members(self, place: str) -> set[str]:
        found = self._classes[place]
        assert found is not None
        return {name for key in ("methods", "properties", "attributes") for name in found[key].split()}


def recorded() -> list[Vllm]:
    """Every version of V1 that was recorded, oldest first."""
    found = [Vllm(path) for path in FOLDER.glob("*.json") if path != V0]
    return sorted(found, key=lambda one: tuple(map(int, one.version.split("."))))


def recorded_v0() -> Vllm:
    """V0's last, as the pool hosts it."""
    return Vllm(V0)


def module(name: str, **members: Any) -> ModuleType:
    """A module with these members."""
    made = ModuleType(name)
    vars(made).update(members)
    return made


def _always(value: Any) -> Callable[[Any], Any]:
    return lambda _: value


def _method(name: str, signature: str | None, act: Callable[..., Any] | None) -> Callable[..., Any]:
    fits = _signature(signature) if signature is not None else None

    def method(*args: Any, **kwargs: Any) -> Any:
        if fits is not None:
            fits.bind(*args, **kwargs)
        assert act is not None, f"{name} must not be called"
        return act(*args[1:], **kwargs)

    method.__name__ = name
    if fits is not None:
        method.__signature__ = fits  # type: ignore[attr-defined]  # what inspect.signature looks for
    return method


def _signature(text: str) -> inspect.Signature:
    (function,) = ast.parse(f"def f{text.removeprefix('static ')}: ...").body
    assert isinstance(function, ast.FunctionDef)
    given = function.args
    kinds = inspect.Parameter
    named = [*given.posonlyargs, *given.args]
    optional = len(named) - len(given.defaults)
    found = [
        kinds(one.arg, kinds.POSITIONAL_OR_KEYWORD, default=None if index >= optional else kinds.empty)
        for index, one in enumerate(named)
    ]
    if given.vararg:
        found.append(kinds(given.vararg.arg, kinds.VAR_POSITIONAL))
    for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        found.append(kinds(one.arg, kinds.KEYWORD_ONLY, default=None if default is not None else kinds.empty))
    if given.kwarg:
        found.append(kinds(given.kwarg.arg, kinds.VAR_KEYWORD))
    return inspect.Signature(found)
