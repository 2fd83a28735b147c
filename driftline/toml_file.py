"""A TOML file as one typed value, and one sentence for whatever is wrong with it.

For the configuration of a run, the settings of an operator and the two files of rules. Each of them has its own
exception class, a subclass of TomlError, which the functions here take as `error` and raise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin

import msgspec

from driftline import bounded_file

T = TypeVar("T")

_DEEP: Final = re.compile(r"""(?<![\w"'.-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){64}""")
"""A key of that many parts. No table of Driftline is so deep, and tomllib takes minutes for one of some thousands."""
LIMIT: Final = 1_000_000
"""Most bytes of a file; a larger one was named by mistake."""


class TomlError(ValueError):
    """A file that cannot be used: one sentence with the file, the key and what is allowed."""


def read(path: Path, error: type[TomlError]) -> str:
    """The text of a regular file, at most LIMIT bytes of UTF-8. Raises `error`."""
    try:
        return bounded_file.read_text(path, LIMIT)
    except (OSError, UnicodeDecodeError) as wrong:
        reason = wrong.strerror if isinstance(wrong, OSError) else "not UTF-8 text"
        raise error(f"{path}: cannot be read: {reason}") from wrong


def parse(text: str, where: str, error: type[TomlError]) -> dict[str, Any]:
    """The tables in the text of a file named `where`. Raises `error`."""
    import tomllib  # most operators have no file, and each start of a console would load the parser

    if _DEEP.search(text):
        raise error(f"{where}: not TOML: a key of more than 64 parts joined by dots")
    try:
        return tomllib.loads(text)
    except RecursionError as wrong:  # thousands of brackets
        raise error(f"{where}: not TOML: brackets are nested too deeply") from wrong
    except ValueError as wrong:  # a TOMLDecodeError, or an integer of thousands of digits
        reason = "a number of thousands of digits" if "int_max_str_digits" in str(wrong) else str(wrong)
        raise error(f"{where}: not TOML: {reason}") from wrong


def convert(
    raw: Any,
    kind: type[T],
    where: str,
    error: type[TomlError],
    *,
    at: str = "",
    allowed: Callable[[], Mapping[str, str]] | None = None,
) -> T:
    """`raw`, the table at key `at` ("": the whole file) of a file named `where`, as a struct of type `kind`.

    `allowed` says in words what each key takes, and is called only where one is wrong. Raises `error`, also for a key
    that the struct does not have.
    """
    parts = list(_parts(raw, kind, at))
    for path, table, into in parts:
        section = _struct(into)
        names = [field.encode_name for field in _fields(section)] if section else []
        for key in table if section and isinstance(table, dict) else ():
            # msgspec names the first unknown field but not the allowed ones, so unknown keys are looked for first.
            if key not in names and key != section.__struct_config__.tag_field:
                key = f"{path}.{key}" if path else key
                raise error(f"{where}: unknown key '{key}'; allowed: {', '.join(names)}")
    # It also hides the key of a dictionary behind dots, so what is inside is converted for itself before the whole.
    for path, value, into in parts:
        try:
            found = msgspec.convert(value, into)
        except msgspec.ValidationError as wrong:
            raise error(f"{where}: {_sentence(str(wrong), path, allowed() if allowed is not None else {})}") from wrong
    return found  # type: ignore[no-any-return]  # of the last part, which is the whole


def _sentence(error: str, at: str, allowed: Mapping[str, str]) -> str:
    # msgspec: "Expected `int` >= 1 - at `$.run.steps`" -> "run.steps: expected `int` >= 1"; without a place for a key
    # that is missing.
    what, _, path = error.rpartition(" - at `$")
    key = (at + path.rstrip("`")).removeprefix(".") if what else at
    what = what or error
    hint = allowed.get(key.partition('."')[0])
    return f"{key}{': ' if key else ''}{what[0].lower()}{what[1:]}{f'; allowed: {hint}' if hint else ''}"


def _parts(raw: Any, kind: Any, at: str) -> Iterator[tuple[str, Any, Any]]:
    """Every value in a table that becomes a struct or a dictionary, with its key and type; the whole comes last."""
    if isinstance(raw, dict) and (section := _struct(kind)):
        for field in _fields(section):
            if field.encode_name in raw:
                yield from _parts(raw[field.encode_name], field.type, f"{at}.{field.encode_name}".removeprefix("."))
    elif isinstance(raw, dict) and get_origin(kind) is dict:
        for name, value in raw.items():
            yield from _parts(value, get_args(kind)[1], f'{at}."{name}"')
    elif isinstance(raw, list) and get_origin(kind) is tuple:
        for index, value in enumerate(raw):
            yield from _parts(value, get_args(kind)[0], f"{at}[{index}]")
    yield at, raw, kind


@cache
def _fields(struct: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Kept, because they are evaluated from annotations: for a file of twenty tables most of the time that it takes."""
    return msgspec.structs.fields(struct)


def _struct(kind: Any) -> Any:
    """The struct among the types that a value may have; None where there is none."""
    for one in (kind, *get_args(kind)) if get_origin(kind) is not dict else ():
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            return one
    return None
