"""Steps of odd journals read in bulk are those of the same frames decoded one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from console.export import build, frame, query
from console.export.build import batches
from console.export.read_ahead import ahead
from console.export.source import Directory
from console.recorded import blocks
from console.recorded.blocks import Block, encode, segment
from console.store.load import load
from console.store.model import RunModel
from driftline.frames import Event, Frame, Metrics
from driftline.frames import encode as packed
from driftline.journal.journal import read, segments
from driftline.journal.records import Damage, Record, pack_head, pack_header, record_encoder
from driftline.rundir import RunDir, create

NOW = 1_790_000_000.25
NAMES = ("reward", "policy/kl_new_old", "abcdef", "fedcba", "f", "step")
SQL = 'SELECT count(*) AS n, sum(step) AS steps, max("reward/mean") AS best, sum("abcdef") AS a FROM metrics '


def write(run: RunDir, sent: list[list[tuple[str, Frame]]]) -> None:
    """A segment of frames with their producers for each list."""
    seq = 0
    for number, some in enumerate(sent, 1):
        parts = [pack_header(number, seq + 1, NOW)]
        for producer, one in some:
            seq += 1
            record = record_encoder.encode(Record(seq, NOW + seq, producer, msgspec.Raw(packed(one)), 1, seq))
            parts += [pack_head(record, seq), record]
        (run.journal / f"{number:06d}.rlj").write_bytes(b"".join(parts))


def odd_run(rng: np.random.Generator) -> Iterator[tuple[str, Frame]]:
    """Stretches of frames of one layout, among them frames of others: same lengths, other names, lives, ranges."""
    step = int(rng.choice([0, 100, 250, 65_500, 2**32 - 300]))
    for _ in range(int(rng.integers(2, 8))):
        names = list(rng.permutation(NAMES)[: int(rng.integers(1, 5))])
        labels = {"reward": "x"} if rng.random() < 0.2 else {}
        producer = str(rng.choice(["trainer", "resumer"]))
        if rng.random() < 0.3:
            step = max(0, step - int(rng.integers(200)))  # resumed from a checkpoint
        for _ in range(int(rng.choice([1, 7, 8, 63, 64, 65, 300]))):
            odd = rng.random()
            if odd < 0.002:
                yield producer, Event(NOW, "info", "x.y", "between")
            elif odd < 0.004:  # of the same length
                yield producer, Metrics(step, step, NOW + step, {name[::-1]: 1.5 for name in names}, labels)
            elif odd < 0.006:
                yield producer[::-1], Metrics(step, step, NOW + step, dict.fromkeys(names, 2.5), labels)
            elif odd < 0.008:
                yield producer, Metrics(step, step, float("nan"), dict.fromkeys(names, 3.5), labels)
            yield producer, Metrics(step, step // 2, NOW + step, {name: float(rng.normal()) for name in names}, labels)
            step += 1


def one_by_one(run: RunDir) -> pl.DataFrame:
    """The stored reports of the careful reader's frames."""
    blocks = (Block.from_bodies([encode(stamped)]) for stamped in read(run.journal))
    return pl.concat(batches("reports", blocks), how="diagonal_relaxed")


@pytest.mark.parametrize("turn", range(12))
def test_odd_journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: int) -> None:
    rng = np.random.default_rng(turn)
    monkeypatch.setattr(blocks, "BLOCK", int(rng.choice([5_000, 60_000, 4 << 20])))
    run = create(tmp_path, "odd")
    write(run, [list(odd_run(rng)) for _ in range(int(rng.integers(1, 4)))])
    for path in segments(run.journal):
        damaged = bytearray(path.read_bytes())
        for place in rng.integers(64, len(damaged), size=turn % 3):
            damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged[: len(damaged) - (turn % 2) * int(rng.integers(1, 200))])
    found = pl.concat(Directory(run).parts("reports"), how="diagonal_relaxed")
    assert_frame_equal(found, one_by_one(run), check_exact=True, check_column_order=False)
    table = frame(run, "metrics")
    assert table["step"].is_unique().all()
    for where in ("", f"WHERE step >= {table['step'][table.height // 2]}"):
        if {"reward/mean", "abcdef"}.issubset(table.columns):
            assert_frame_equal(query(run, SQL + where), pl.SQLContext(metrics=table).execute(SQL + where).collect())
    model = RunModel()
    for stamped in read(run.journal):
        model.apply(stamped)
    loaded = load(run).model
    assert (loaded.head, loaded.step, loaded.damaged) == (model.head, model.step, model.damaged)
    for name in model.metrics.names():
        np.testing.assert_array_equal(loaded.metrics.values(name), model.metrics.values(name))


@pytest.mark.parametrize("odd", [0, 1, 63, 150, 298, 299])
def test_a_frame_of_another_layout_among_many_of_one(tmp_path: Path, odd: int) -> None:
    sent = [Metrics(at, at, NOW, {"other" if at == 300 + odd else "usual": float(at)}) for at in range(300, 600)]
    run = create(tmp_path, "mixed")
    write(run, [[("trainer", one) for one in sent]])
    table = pl.concat(Directory(run).parts("reports"), how="diagonal_relaxed")
    assert table["other"].drop_nulls().to_list() == [300.0 + odd]
    assert table["usual"].null_count() == 1
    assert table["step"].to_list() == list(range(300, 600))


def test_a_name_that_comes_in_the_first_large_part_of_a_query_but_not_in_its_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "REPORT_ROWS", 20)
    run = create(tmp_path, "late")
    sent = [Metrics(at, at, NOW + at, {"a": 1.0, "late": 2.0} if at >= 3_000 else {"a": 1.0}) for at in range(5_000)]
    monkeypatch.setattr(blocks, "BLOCK", 4_000)
    write(run, [[("trainer", one) for one in sent]])
    assert query(run, "SELECT count(*) AS n, sum(a) AS a FROM metrics").row(0) == (5_000, 5_000.0)
    assert query(run, "SELECT count(*) AS n, sum(late) AS late FROM metrics").row(0) == (5_000, 4_000.0)
    assert query(run, "SELECT * FROM metrics")["late"].count() == 2_000


def test_what_a_block_has_stays_while_others_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 4_000)
    run = create(tmp_path, "kept")
    write(run, [[("trainer", Metrics(at, at, NOW + at, {"a": float(at)})) for at in range(2_000)]])
    (path,) = segments(run.journal)
    kept = []
    for block in segment(path, Damage()):
        largest = max(block.runs, key=lambda one: one.n)
        kept.append((block.rows(largest)[::2, 10:], block.rows(largest)[::2, 10:].copy()))
    assert len(kept) > 10
    for view, copy in kept:
        np.testing.assert_array_equal(view, copy)


def test_a_reading_that_is_given_up_leaves_no_thread_and_an_error_comes_in_its_place() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    parts = ahead(broken())
    assert next(parts) == 1
    with pytest.raises(ValueError, match="broken"):
        next(parts)
    endless = ahead(iter(int, 1))
    assert [next(endless) for _ in range(5)] == [0] * 5
    endless.close()
