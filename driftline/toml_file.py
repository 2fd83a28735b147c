"""A TOML file as one typed value, and one sentence for whatever is wrong with it.

For the configuration of a run, the settings of an operator and the two files of rules. Each of them has its own
exception class, a subclass of TomlError, which the functions here take as `error` and raise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin

import msgspec

T = TypeVar("T")

LIMIT: Final = 1_000_000
"""Most characters of a file; a larger one (a log, a device) was named by mistake and is not read to its end."""


class TomlError(ValueError):
    """A file that cannot be used: one sentence with the file, the key and what is allowed."""


def read(path: Path, error: type[TomlError]) -> str:
    """The text of a file, at most LIMIT characters of UTF-8. Raises `error`."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LIMIT + 1)
    except (OSError, UnicodeDecodeError) as wrong:
        reason = wrong.strerror if isinstance(wrong, OSError) else "not UTF-8 text"
        raise error(f"{path}: cannot be read: {reason}") from wrong
    if len(text) > LIMIT:
        raise error(f"{path}: cannot be read: more than {LIMIT} characters")
    return text


def parse(text: str, where: str, error: type[TomlError]) -> dict[str, Any]:
    """The tables in the text of a file named `where`. Raises `error`."""
    import tomllib  # most operators have no file, and each start of a console would load the parser

    try:
        return tomllib.loads(text)
    # ValueError: a TOMLDecodeError, or an integer of thousands of digits. RecursionError: thousands of brackets.
    except (ValueError, RecursionError) as wrong:
        raise error(f"{where}: not TOML: {wrong}") from wrong


def convert(
    raw: Any,
    kind: type[T],
    where: str,
    error: type[TomlError],
    *,
    at: str = "",
    allowed: Mapping[str, str] | None = None,
) -> T:
    """`raw`, the table at key `at` ("": the whole file) of a file named `where`, as a struct of type `kind`.

    `allowed` says in words what a key takes. Raises `error`, also for a key that the struct does not have.
    """
    for path, table, section in _tables(raw, kind, at):
        names = [field.name for field in msgspec.structs.fields(section)]
        for key in table:
            # msgspec names the first unknown field but not the allowed ones, so unknown keys are looked for first.
            if key not in names and key != section.__struct_config__.tag_field:
                key = f"{path}.{key}" if path else key
                raise error(f"{where}: unknown key '{key}'; allowed: {', '.join(names)}")
    # msgspec hides the key of a dictionary behind dots, so each entry of one is converted for itself before the whole.
    for path, value, into in [*_entries(raw, kind, at), (at, raw, kind)]:
        try:
            found = msgspec.convert(value, into)
        except msgspec.ValidationError as wrong:
            raise error(f"{where}: {_sentence(str(wrong), path, allowed or {})}") from wrong
    return found  # type: ignore[no-any-return]  # of the last conversion, which is into `kind`


def _sentence(error: str, at: str, allowed: Mapping[str, str]) -> str:
    # msgspec: "Expected `int` >= 1 - at `$.run.steps`" -> "run.steps: expected `int` >= 1"; without a place for a key
    # that is missing.
    what, _, path = error.rpartition(" - at `$")
    key = (at + path.rstrip("`")).removeprefix(".") if what else at
    what = what or error
    hint = allowed.get(key.partition('."')[0])
    return f"{key}{': ' if key else ''}{what[0].lower()}{what[1:]}{f'; allowed: {hint}' if hint else ''}"


def _tables(raw: Any, kind: Any, at: str) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Every table that becomes a struct, with its key and the struct's class, the outer one first."""
    section = _struct(kind)
    if section is not None and isinstance(raw, dict):
        yield at, raw, section
    for path, value, into in _inner(raw, kind, at):
        yield from _tables(value, into, path)


def _entries(raw: Any, kind: Any, at: str) -> Iterator[tuple[str, Any, Any]]:
    """Every entry of a dictionary, with its key and type, the inner ones first."""
    for path, value, into in _inner(raw, kind, at):
        yield from _entries(value, into, path)
        if _struct(kind) is None:
            yield path, value, into


def _inner(raw: Any, kind: Any, at: str) -> Iterator[tuple[str, Any, Any]]:
    """The values in a table that becomes a struct or a dictionary, each with its key and its type."""
    section = _struct(kind)
    if not isinstance(raw, dict):
        return
    if section is not None:
        for field in msgspec.structs.fields(section):
            if field.name in raw:
                yield f"{at}.{field.name}" if at else field.name, raw[field.name], field.type
    elif get_origin(kind) is dict:
        for name, value in raw.items():
            yield f'{at}."{name}"', value, get_args(kind)[1]


def _struct(kind: Any) -> Any:
    """The struct among the types that a value may have; None where there is none."""
    for one in (kind, *get_args(kind)) if get_origin(kind) is not dict else ():
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            return one
    return None
