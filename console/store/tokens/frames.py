"""Tokens frames whose token texts stay encoded: a million tokens a second are too many for strings.

Fields that are not arrays are decoded per sequence only; the pieces of a frame's tokens are decoded when one of them is
read. All returned text is safe to show (`driftline.text`).
"""

from __future__ import annotations

from typing import Final, cast

import msgspec

from driftline.frames import DECODE_ERRORS, Count, FrameError, Step, Time, Tokens, Version, check_tokens
from driftline.text import sanitize

NO_PIECES: Final = msgspec.Raw(b"\x90")
_LARGEST: Final = 2**62
_TAG: Final = b"\xa1t"
_ARRAY16: Final = 0xDC


class LeanTokens(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="t"):
    """`driftline.frames.Tokens`, field by field, but for `pieces`, which `pieces_of` decodes."""

    step: Step
    version: Version
    time: Time
    n: Count
    ids: bytes
    seq: bytes
    position: bytes
    token_version: bytes
    rollout: bytes
    trainer: bytes
    engines: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    rewards: tuple[float, ...] = ()
    pieces: msgspec.Raw = NO_PIECES


_lean: Final = msgspec.msgpack.Decoder(LeanTokens)
_pieces: Final = msgspec.msgpack.Decoder(tuple[str, ...])


def is_tokens(body: msgspec.Raw | bytes) -> bool:
    """Whether an encoded frame has the tag of Tokens, by its first bytes."""
    head = bytes(memoryview(body)[:5])
    return bool(head) and (head[3:5] if head[0] == _ARRAY16 else head[1:3]) == _TAG


def decode_lean(body: msgspec.Raw | bytes) -> LeanTokens:
    """Unpack a Tokens frame; its pieces hold on to nothing else. Raises FrameError."""
    try:
        frame = _lean.decode(body)
    except DECODE_ERRORS as error:
        raise FrameError(str(error) or type(error).__name__) from error
    check_tokens(cast("Tokens", frame))  # it looks at the arrays alone
    if max(abs(frame.step), abs(frame.version)) > _LARGEST:
        raise FrameError(f"Tokens.step, Tokens.version: {frame.step}, {frame.version}, out of range")
    return msgspec.structs.replace(
        frame, engines=_safe(frame.engines), prompts=_safe(frame.prompts), pieces=frame.pieces.copy()
    )


def pieces_of(raw: msgspec.Raw, n: int) -> tuple[str, ...]:
    """The decoded text of each of `n` tokens; () where the producer sent none, or none that can be read."""
    try:
        pieces = _pieces.decode(raw)
    except DECODE_ERRORS:
        return ()  # shown by its ids, as a frame without text
    if len(pieces) != n:
        return ()
    return _safe(pieces)


def _safe(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words sanitised; a single search over all of them if none needs it."""
    whole = "".join(words)
    return words if sanitize(whole) is whole else tuple(map(sanitize, words))
