"""Tokens frames decoded without their text, and the text when it is asked for."""

from __future__ import annotations

import msgspec
import pytest

from console.store.tokens.frames import LeanTokens, decode_lean, is_tokens, pieces_of
from driftline.frames import Event, FrameError, Tokens, encode
from tests.unit.runs import tokens, whole

BLOB = b"\0\0\0\0"


def test_the_lean_frame_has_the_fields_of_the_frame() -> None:
    lean = {field.name: field for field in msgspec.structs.fields(LeanTokens)}
    full = msgspec.structs.fields(Tokens)
    assert list(lean) == [field.name for field in full], "a field that is added to Tokens belongs into LeanTokens"
    assert [field.type for field in full if field.name != "pieces"] == [
        field.type for name, field in lean.items() if name != "pieces"
    ]


@pytest.mark.parametrize("pieces", [True, False])
def test_it_says_what_the_frame_says(pieces: bool) -> None:
    sent = tokens(3, pieces=pieces)
    lean = decode_lean(encode(sent))
    for field in LeanTokens.__struct_fields__:
        if field != "pieces":
            assert getattr(lean, field) == getattr(sent, field), field
    assert pieces_of(lean.pieces, lean.n) == sent.pieces


def test_text_is_safe_to_show_wherever_it_stands() -> None:
    evil = "\x1b[31m\u202eno\nway"
    sent = Tokens(1, 1, 0.0, 1, *[BLOB] * 6, (evil,), (evil,), (0.0,), (evil,))
    lean = decode_lean(encode(sent))
    assert lean.engines == lean.prompts == pieces_of(lean.pieces, 1) == ("[31mno↵way",)


def test_what_cannot_be_text_has_no_pieces_and_nothing_raises() -> None:
    body = encode(Tokens(1, 1, 0.0, 1, *[BLOB] * 6, pieces=("PLACE",))).replace(b"PLACE", b"\xed\xa0\x80zz")
    assert pieces_of(decode_lean(body).pieces, 1) == ()
    assert pieces_of(msgspec.Raw(b"\xc1"), 1) == ()
    assert pieces_of(decode_lean(encode(tokens(1))).pieces, 3) == (), "of another number of tokens"


@pytest.mark.parametrize("body", [b"", b"\xc1", encode(Event(0.0, "info", "k", "t")), b"\x9f\xa1t"])
def test_what_is_no_tokens_frame_is_refused(body: bytes) -> None:
    with pytest.raises(FrameError):
        decode_lean(body)


def test_arrays_of_the_wrong_length_are_refused() -> None:
    body = msgspec.msgpack.encode(Tokens(1, 1, 0.0, 2, *[BLOB] * 6))
    with pytest.raises(FrameError, match="4 bytes, 8 expected"):
        decode_lean(body)


def test_tokens_are_recognised_from_their_first_bytes() -> None:
    for frame in whole(2):
        assert is_tokens(msgspec.Raw(encode(frame))) is isinstance(frame, Tokens)
    longer = msgspec.msgpack.encode(["t", *range(20)])
    assert is_tokens(longer), "from a producer of a later schema"
    assert not is_tokens(b"")
