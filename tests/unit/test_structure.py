"""The rooms of the product: what may lie beside them, no circles, and every deferred import with its reason."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.unit.structure import ROOT, Import, circles, imports, modules, room

KNOWN = modules()
BESIDE = {
    "console": {"__init__", "errors", "formatting"},
    "console/tui": {
        "__init__", "app", "bindings", "host", "notice", "open_live", "open_replay", "options", "pictures",
    },
    "engine": {"__init__", "errors", "fixes", "types"},
    "trainer": {
        "__init__", "__main__", "checkpoint", "errors", "loop", "migration", "probing", "report", "rollouts",
        "session", "setup",
    },
}  # fmt: skip
"""Modules that lie beside the rooms of a package; every other module has a room."""


@cache
def known_imports() -> list[Import]:
    """Read for the tests that need them, not with this file: every worker collects it."""
    return imports(KNOWN)


@pytest.mark.parametrize("folder", list(BESIDE))
def test_only_named_modules_lie_beside_the_rooms(folder: str) -> None:
    assert {path.stem for path in (ROOT / folder).glob("*.py")} == BESIDE[folder]


def test_every_room_says_what_it_is_for() -> None:
    for folder in {path.parent for path in KNOWN.values()}:
        first = (folder / "__init__.py").read_text(encoding="utf-8").partition("\n")[0]
        assert first.startswith('"""'), folder
        assert len(first) > 20, folder


def _graph(node: Callable[[str], str], kinds: set[str]) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = defaultdict(set)
    for one in known_imports():
        if one.imported in KNOWN and one.kind in kinds and node(one.importer) != node(one.imported):
            graph[node(one.importer)].add(node(one.imported))
    return graph


def test_no_circle_of_files_whenever_they_import() -> None:
    """Neither at start, nor for types, nor in functions."""
    assert circles(_graph(lambda name: name, {"start", "types", "deferred"})) == []


def test_no_circle_of_rooms_whenever_they_import() -> None:
    assert circles(_graph(lambda name: room(name, KNOWN), {"start", "types", "deferred"})) == []


def test_no_circle_of_the_consoles_packages() -> None:
    def outer(name: str) -> str:
        return ".".join(name.split(".")[:2]) if name.startswith("console") else name

    assert circles(_graph(outer, {"start", "types", "deferred"})) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}}) == []


def test_every_deferred_import_has_a_reason() -> None:
    """A new one is noticed here: it is added to the list with why it may not run at the start of its module."""
    listed = tomllib.loads(Path(__file__).with_name("deferred_imports.toml").read_text(encoding="utf-8"))
    assert all(group["reason"] for group in listed.values())
    expected = {
        (importer, imported)
        for group in listed.values()
        for importer, names in group["imports"].items()
        for imported in names
    }
    assert _deferred(known_imports()) == expected


def _deferred(found: list[Import]) -> set[tuple[str, str]]:
    return {(one.importer, one.imported) for one in found if one.kind == "deferred"}
