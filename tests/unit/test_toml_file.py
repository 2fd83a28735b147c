"""One loader for every TOML file: what is wrong is one sentence with the file and the key."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec
import pytest

from driftline.toml_file import LIMIT, TomlError, convert, parse, read


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    size: int
    note: str = ""


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    one: Inner | None = None
    some: dict[str, Inner] = {}
    free: dict[str, str | int] = {}
    rate: float = 1.0


class OwnError(TomlError):
    pass


def loaded(text: str, **options: dict[str, str]) -> Outer:
    return convert(parse(text, "x.toml", OwnError), Outer, "x.toml", OwnError, **options)


def test_tables_become_structs() -> None:
    found = loaded('one = { size = 1 }\n[some."a/b"]\nsize = 2\n[free]\nx = "y"\nn = 3\n')
    assert found == Outer(one=Inner(1), some={"a/b": Inner(2)}, free={"x": "y", "n": 3})
    assert loaded("") == Outer()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sice = 1", "x.toml: unknown key 'sice'; allowed: one, some, free, rate"),
        ("one = { sice = 1 }", "x.toml: unknown key 'one.sice'; allowed: size, note"),
        ('[some."a/b"]\nsice = 1', "x.toml: unknown key 'some.\"a/b\".sice'; allowed: size, note"),
        ("one = { note = 'n' }", "x.toml: one: object missing required field `size`"),
        ('[some."a/b"]\nnote = "n"', 'x.toml: some."a/b": object missing required field `size`'),
        ('[some.a]\nsize = 1\n[some.b]\nsize = "n"', 'x.toml: some."b".size: expected `int`, got `str`'),
        ("some = { a = 3 }", 'x.toml: some."a": expected `object`, got `int`'),
        ("some = 3", "x.toml: some: expected `object`, got `int`"),
        ("one = 3", "x.toml: one: expected `object | null`, got `int`"),
        ("free = { x = [1] }", 'x.toml: free."x": expected `int | str`, got `array`'),
        ("rate = 'fast'", "x.toml: rate: expected `float`, got `str`"),
    ],
)
def test_the_key_is_named(text: str, sentence: str) -> None:
    with pytest.raises(OwnError) as error:
        loaded(text)
    assert str(error.value) == sentence


def test_what_a_key_takes_is_said_in_words() -> None:
    for text, key in (("rate = 'fast'", "rate"), ("free = { x = [1] }", "free")):
        with pytest.raises(OwnError, match=r"; allowed: words$"):
            loaded(text, allowed=partial(dict, {key: "words"}))


def test_a_table_inside_a_file_is_converted_under_its_own_key() -> None:
    for raw, said in (({}, "rules.a: object missing"), ({"size": "s"}, "rules.a.size: expected"),
                      ({"x": 1}, "unknown key 'rules.a.x'; allowed: size, note")):  # fmt: skip
        with pytest.raises(OwnError) as error:
            convert(raw, Inner, "x.toml", OwnError, at="rules.a")
        assert str(error.value).startswith(f"x.toml: {said}")


@pytest.mark.parametrize("text", ["a = ", "a = " + "9" * 5000, "a = " + "[" * 100_000, ".".join("a" * 5000) + " = 1"])
def test_what_the_parser_refuses_in_any_way_is_one_sentence(text: str) -> None:
    with pytest.raises(OwnError, match=r"^x\.toml: not TOML: ") as error:
        parse(text, "x.toml", OwnError)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 100


def test_a_sentence_of_many_words_is_no_deep_key() -> None:
    text = "x. " * 60 + "and so on, " + "a. b" * 60 + ", " + ".".join("word" for _ in range(60))
    assert parse(f'note = "{text}"', "x.toml", OwnError) == {"note": text}


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("#" * LIMIT, encoding="utf-8")
    assert len(read(path, OwnError)) == LIMIT
    path.write_text("#" * (LIMIT + 1), encoding="utf-8")
    with pytest.raises(OwnError, match=rf"x\.toml: cannot be read: more than {LIMIT} bytes$"):
        read(path, OwnError)
    with pytest.raises(OwnError, match="cannot be read: it is a device, not a regular file"):
        read(Path("/dev/zero"), OwnError)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    with pytest.raises(OwnError, match=r"x\.toml: cannot be read: No such file or directory$"):
        read(path, OwnError)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(OwnError, match=r"x\.toml: cannot be read: not UTF-8 text$"):
        read(path, OwnError)
