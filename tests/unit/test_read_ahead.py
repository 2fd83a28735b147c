"""Parts that are made in threads: the same parts, in order, and no thread is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.export import query
from console.export.projection import Projection
from console.export.read_ahead import AHEAD, SIDE_BY_SIDE, ahead, side_by_side
from console.export.source import Directory
from driftline.frames import Metrics
from driftline.journal.journal import segments
from driftline.rundir import create
from tests.unit.runs import journal

LIMIT = 30.0
SQL = 'SELECT count(*) AS n, avg("a") AS a FROM metrics WHERE step >= 0'


def threads() -> int:
    return sum(thread.name == "parts-ahead" for thread in threading.enumerate())


def stream(first: int, count: int) -> Iterator[int]:
    yield from range(first, first + count)


@pytest.mark.parametrize("sizes", [[], [0], [3], [5, 0, 7, 1], [1] * 20])
def test_streams_come_one_after_the_other(sizes: list[int]) -> None:
    starts = [100 * at for at in range(len(sizes))]
    wanted = [value for first, size in zip(starts, sizes, strict=True) for value in range(first, first + size)]
    assert list(side_by_side(stream(first, size) for first, size in zip(starts, sizes, strict=True))) == wanted
    assert list(ahead(iter(wanted))) == wanted
    assert threads() == 0


def test_the_second_stream_is_made_while_the_first_one_is_taken() -> None:
    begun = threading.Event()

    def first() -> Iterator[int]:
        assert begun.wait(LIMIT), "the second stream is not begun before the first has ended"
        yield 1

    def second() -> Iterator[int]:
        begun.set()
        yield 2

    assert list(side_by_side([first(), second()])) == [1, 2]


def test_no_more_is_made_ahead_than_is_bounded() -> None:
    made: list[int] = []

    def endless(at: int) -> Iterator[int]:
        while True:
            made.append(at)
            yield at

    parts = side_by_side(endless(at) for at in range(100))
    assert [next(parts) for _ in range(3)] == [0, 0, 0]
    parts.close()
    assert threads() == 0
    assert max(made) < SIDE_BY_SIDE, "a third stream waits for the end of the first"
    assert made.count(1) <= AHEAD + 1


def test_an_error_comes_where_its_part_would_have_come_and_ends_the_others() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    parts = side_by_side([stream(0, 1), broken(), stream(5, 1000)])
    assert [next(parts), next(parts)] == [0, 1]
    with pytest.raises(ValueError, match="broken"):
        next(parts)
    assert threads() == 0


def test_a_query_over_several_segments_counts_the_damage_of_each_once(tmp_path: Path) -> None:
    run = create(tmp_path, "run")
    for life in range(5):
        journal(run, (Metrics(50 * life + at, 0, 1.0, {"a": float(at), "b": 2.0}) for at in range(50)))
    paths = segments(run.journal)
    whole = query(run, SQL)
    for path in (paths[1], paths[3]):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
    source, few, every = Directory(run), Projection(frozenset({"step", "a"})), Projection()
    rows = [sum(part.height for part in source.parts("reports", few)), source.damage.bytes]
    assert rows == [sum(part.height for part in source.parts("reports", every)), source.damage.bytes]
    assert rows[0] == 248
    assert whole["n"].item() == 250
    assert query(run, SQL)["n"].item() == 248
