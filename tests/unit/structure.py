"""The product's modules and what each imports, read from the source: nothing is imported to find it out."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("driftline", "engine", "trainer", "console")

Kind = Literal["start", "types", "deferred"]
"""When an import runs: with its module, for type checkers only, or when a function is called."""


class Import(NamedTuple):
    """`importer` imports `imported` (dotted names; a module of the product, or a package of others)."""

    importer: str
    imported: str
    kind: Kind


def modules() -> dict[str, Path]:
    """Every module of the product by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(known: Mapping[str, Path]) -> list[Import]:
    """Every import of every module, in the order of the source."""
    return [
        Import(name, target, kind)
        for name, path in known.items()
        for target, kind in _of(ast.parse(path.read_text(encoding="utf-8")), "start", known)
    ]


def _of(node: ast.AST, kind: Kind, known: Mapping[str, Path]) -> Iterator[tuple[str, Kind]]:
    for child in ast.iter_child_nodes(node):
        inside = kind
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = "deferred"
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            inside = "types"
        elif isinstance(child, ast.Import):
            yield from ((alias.name, kind) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module is not None:
            for alias in child.names:
                member = f"{child.module}.{alias.name}"
                yield (member if member in known else child.module), kind
        yield from _of(child, inside, known)


def room(name: str, known: Mapping[str, Path]) -> str:
    """The room of a module: its folder; a module beside rooms is a room of its own."""
    path = known[name]
    beside = any(child.is_dir() and (child / "__init__.py").exists() for child in path.parent.iterdir())
    return name if path.name == "__init__.py" or beside else name.rpartition(".")[0]


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Every group of nodes that reach each other, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1 or node in graph.get(node, ()):
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found
