"""Pages of a journal: records by their numbers, over closed segments and the one being written."""

from __future__ import annotations

import bisect
import logging
from collections.abc import Sequence
from typing import Final

from driftline.journal.index import SegmentCache, read_one
from driftline.journal.segment import OpenSegment, Segment

PAGE_LOOK: Final = 20_000
"""Numbers that one page looks at."""

log = logging.getLogger("driftline.hub")


def page_of(
    closed: Sequence[Segment],
    written: OpenSegment,
    cache: SegmentCache,
    start: int,
    limit: int,
    max_bytes: int,
    *,
    tokens: bool,
) -> tuple[list[bytes], int]:
    """Records from `start` on, at most `limit` and (but for one) `max_bytes`; and where to go on.

    `start` is not before the first segment; `tokens` is false to leave Tokens frames out.
    """
    records: list[bytes] = []
    seq, taken = start, 0
    at_segment = max(0, bisect.bisect_right(closed, seq, key=lambda s: s.first) - 1)
    for segment in [*closed[at_segment:], None]:
        if segment is not None and segment.end <= seq:
            continue
        try:
            fd, index = (
                (written.fd, written.index) if segment is None else cache.open_segment(segment.path, segment.first - 1)
            )
        except OSError as error:
            log.error("a page leaves out a segment that cannot be read: %s", error)
            seq = segment.end if segment is not None else seq
            continue
        for at in range(max(0, seq - index.first), len(index)):
            seq = index.first + at
            if seq - start >= PAGE_LOOK:
                return records, seq
            size = index.sizes[at]
            if index.offsets[at] == 0 or not (tokens or index.plain[at]):
                continue
            if len(records) == limit or (records and taken + size > max_bytes):
                return records, seq
            body = read_one(fd, index.offsets[at], size, seq)
            if body is not None:
                records.append(body)
                taken += size
        seq = max(seq, index.first + len(index))
    return records, max(start, seq)
