"""The last frames of a live run, oldest first, by paging backwards from its head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from driftline.client import Client
from driftline.frames import Frame, FrameError, Stamped

PAGE: Final = 256
REACH: Final = 8_192
"""Frames to search back over at most: engines report a few times a second, a trainer step can take a minute."""


def recent_frames(client: Client, head: int, enough: Callable[[list[Stamped]], bool]) -> list[Stamped]:
    """Frames up to `head`, page by page backwards, until `enough` of them, the start of the run or REACH."""
    found: list[Stamped] = []
    end = head + 1
    while end > max(1, head - REACH) and not enough(found):
        start = max(1, end - PAGE)
        found = frames_between(client, start, end) + found
        end = start
    return found


def frames_between(client: Client, start: int, end: int) -> list[Stamped]:
    """Frames with start <= seq < end, without Tokens frames."""
    frames: list[Stamped] = []
    while start < end:
        page = client.page(start, tokens=False)
        frames += [stamped for stamped in page.frames if stamped.seq < end]
        if page.next <= start:
            break
        start = page.next
    return frames


def decode_frames(stamped: list[Stamped]) -> list[tuple[Stamped, Frame]]:
    """Pairs of frame and decoded body; frames of a newer producer that this console does not know are left out."""
    pairs = []
    for one in stamped:
        try:
            pairs.append((one, one.frame()))
        except FrameError:
            continue
    return pairs
