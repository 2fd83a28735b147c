"""Foreign logs: bytes as W&B's and TensorBoard's own writers left them, then runs of them that every verb can read."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import polars as pl
import pytest

from console.cli.main import main
from console.export import frame
from console.importing import tensorboard, wandb
from console.importing.import_run import import_log, read
from console.importing.protobuf import fields
from console.importing.rows import Log, LogImportError
from driftline.catalog.metrics import ALIASES, BY_NAME
from driftline.rundir import find
from tests.unit.import_logs import WANDB_HEADER, field, history, varint, wandb_file

WANDB_HISTORY = bytes.fromhex(
    "080d12730a25120a5f74696d657374616d70820116312e37393534313830373639393738303337652b30390a1812085f72756e74696d6582"
    "010b312e3037393037353731340a0b12055f73746570820101330a121209726c2f726577617264820104302e32350a0b12036f776e820103"
    "4e614e12020803"
)
"""A record of wandb 0.31.0 after `log({"rl/reward": 0.25, "own": nan}, step=3)`."""
EVENTS = bytes.fromhex(
    "1800000000000000a37f4b2209107b41f7f9c0da411a0d627261696e2e4576656e743a322766b02c220000000000000078113dfd090000"
    "20e04eacda4110072a150a130a0c747261696e2f726577617264150000803ebbb023fb"
)
"""The file of tensorboardX 2.6.5 after `add_scalar("train/reward", 0.25, 7, walltime=1790000000.5)`."""


def test_a_record_of_wandb_itself() -> None:
    log = Log("W&B")
    bodies = list(wandb.records(wandb_file([WANDB_HISTORY]), log))
    assert bodies == [WANDB_HISTORY]
    assert log.damaged == 0


def test_wandb_history_is_read_over_many_blocks(tmp_path: Path) -> None:
    folder = tmp_path / "offline-run-20260301_120000-abc"
    folder.mkdir()
    sent = [history(step, {"rl/kl_new_old": step / 3, "pad": "x" * (step * 97 % 9000)}) for step in range(300)]
    long = history(300, {"pad": "y" * 200_000, "rl/kl_new_old": 100.0})
    run = field(17, field(1, b"abc") + field(3, b"pipeline") + field(8, b"v1 defaults"))
    (folder / "run-abc.wandb").write_bytes(wandb_file([run, WANDB_HISTORY, *sent, long]))
    log = read(folder)
    assert (log.title, log.damaged) == ("pipeline/v1 defaults", 0)
    assert [row.step for row in log.rows] == list(range(301))
    own = log.rows[3]
    assert (own.time, own.values["rl/reward"]) == (1795418076.9978037, 0.25)
    assert math.isnan(own.values["own"])
    assert own.values.keys() == {"rl/reward", "own", "rl/kl_new_old"}
    assert [row.values["rl/kl_new_old"] for row in log.rows] == [*(step / 3 for step in range(300)), 100.0]
    assert log.left.counts == {"values that are no single number": 300}, "the texts under `pad`"


def test_a_damaged_block_of_wandb_costs_that_block(tmp_path: Path) -> None:
    sent = [history(step, {"a": float(step), "pad": "x" * 500}) for step in range(300)]
    data = bytearray(wandb_file(sent))
    data[wandb.BLOCK + 5000] ^= 1
    path = tmp_path / "run-x.wandb"
    path.write_bytes(data[:-20])
    log = read(path)
    steps = [row.step for row in log.rows]
    assert steps == sorted(steps)
    assert 0 < log.damaged <= wandb.BLOCK + 2000
    assert 300 - len(steps) < 2 * wandb.BLOCK / 500
    assert all(row.values == {"a": float(row.step)} for row in log.rows)


def test_nested_numbers_and_media_of_wandb(tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    image = {"_type": "image-file", "size": 3}
    values = {"eval": {"deep": {"x": 2}, "flag": True}, "picture": image, "inf": "Infinity"}
    path.write_bytes(wandb_file([history(1, values)]))
    (row,) = read(path).rows
    assert row.values == {"eval.deep.x": 2.0, "eval.flag": 1.0, "inf": math.inf}


def test_an_event_file_of_tensorboardx_itself(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1.host").write_bytes(EVENTS)
    log = read(tmp_path)
    (row,) = log.rows
    assert (row.step, row.time, row.values, log.damaged) == (7, 1790000000.5, {"train/reward": 0.25}, 0)


def test_tensors_torn_ends_and_folders_of_tensorboard(tmp_path: Path) -> None:
    def record(data: bytes) -> bytes:
        head = struct.pack("<Q", len(data))
        return head + struct.pack("<I", tensorboard.masked(head)) + data + struct.pack("<I", tensorboard.masked(data))

    def event(step: int, tag: str, tensor: bytes) -> bytes:
        return record(field(2, step) + field(5, field(1, field(1, tag.encode()) + field(8, tensor))))

    first = tmp_path / "events.out.tfevents.1"
    wrong = bytearray(event(3, "lost", field(1, 2) + field(4, struct.pack("<d", 9.0))))
    wrong[-1] ^= 1
    first.write_bytes(
        event(1, "a", field(1, 2) + field(4, struct.pack("<d", 1.5)))
        + event(1, "b", field(1, 1) + field(5, struct.pack("<f", 0.5)))
        + event(2, "c", field(1, 9) + field(10, varint(2**64 - 3)))
        + bytes(wrong)
        + event(4, "several", field(1, 1) + field(5, struct.pack("<ff", 0.5, 1.0)))
        + event(5, "torn", field(1, 2) + field(4, struct.pack("<d", 1.5)))[:-6]
    )
    other = tmp_path / "eval"
    other.mkdir()
    (other / "events.out.tfevents.2").write_bytes(EVENTS)
    log = read(tmp_path)
    assert [(row.step, row.values) for row in log.rows] == [
        (1, {"a": 1.5, "b": 0.5}), (2, {"c": -3.0}), (7, {"eval/train/reward": 0.25}),
    ]  # fmt: skip
    assert log.damaged > 0


@pytest.mark.parametrize("data", [b"", b"\xff" * 20, bytes(range(256)), b"\x0a\x7f"])
def test_bytes_that_are_no_message(data: bytes) -> None:
    try:
        list(fields(data))
    except ValueError:
        return
    assert data == b""


def test_jsonl_of_verl_and_of_anybody(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "data": {"actor/entropy": 2.5, "actor/pg_clipfrac": 0.1}}\n'
        "not json\n"
        '{"step": 2, "data": {"actor/entropy": NaN, "critic": {"score": {"mean": 0.5}}}}\n'
    )
    log = read(path)
    assert [row.step for row in log.rows] == [1, 2]
    assert log.rows[0].values == {"actor/entropy": 2.5, "actor/pg_clipfrac": 0.1}
    assert log.rows[1].values["critic/score/mean"] == 0.5
    assert log.damaged == len("not json\n")


def test_csv_and_a_step_by_another_name(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_text("tick,timestamp,reward,note\n1,2026-03-01T12:00:00+00:00,0.5,a\n2,,nan,b\n3,,,c\n")
    with pytest.raises(LogImportError, match=r"no entry has a step under any of train/.*; it has: tick, reward"):
        read(path)
    log = read(path, "tick")
    assert [row.step for row in log.rows] == [1, 2], "the third row has no number"
    assert log.rows[0].time == 1772366400.0
    assert log.left.lines() == ["values that are no single number: 3 (note)"]
    assert log.rows[0].values == {"reward": 0.5}
    assert math.isnan(log.rows[1].values["reward"])


def test_the_trainer_state_of_trl(tmp_path: Path) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"log_history": [{"step": 5, "reward": 0.25, "clip_ratio/region_mean": 0.125}]}))
    assert read(path).rows[0].values == {"reward": 0.25, "clip_ratio/region_mean": 0.125}


def test_every_number_of_a_log_with_several_names_for_one_metric_is_in_the_table(tmp_path: Path) -> None:
    sent = {name: at + 0.5 for at, name in enumerate([*BY_NAME, *ALIASES, "train/reward", "actor/reward_mean"])}
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"step": 1, **sent}) + "\n")
    made = import_log(path, tmp_path / "runs", "all")
    (row,) = frame(find(made.path), "metrics").to_dicts()
    renamed = {made.mapped.get(name, name): value for name, value in sent.items()}
    assert len(renamed) == len(sent)
    assert {name: row[name] for name in renamed} == renamed
    assert all(row[name] == sent[name] for name in BY_NAME)


def test_an_import_is_a_run_that_every_verb_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_RUNS", str(tmp_path / "runs"))
    path = tmp_path / "old.jsonl"
    path.write_text("".join(f'{{"step": {s}, "rl/reward": {s / 4}, "own": {s}}}\n' for s in range(1, 21)))
    assert main(["import", str(path), "--as", "reference", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["steps"], report["first"], report["last"]) == (20, 1, 20)
    assert (report["mapped"], report["kept"]) == ({"rl/reward": "reward/mean"}, ["own"])
    table = frame(find(report["run"]), "metrics")
    assert table["reward/mean"].to_list() == [s / 4 for s in range(1, 21)]
    assert table["own"].to_list() == [float(s) for s in range(1, 21)]
    assert main(["status", "--run", report["run"], "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["status"], status["step"], status["detail"]) == ("finished", 20, "imported from JSONL old")
    assert main(["query", "--run", report["run"], "SELECT kind FROM events"]) == 0
    assert "run.imported" in capsys.readouterr().out
    assert main(["export", "--run", report["run"], "--out", str(tmp_path / "m.parquet")]) == 0
    assert pl.read_parquet(tmp_path / "m.parquet").height == 20


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("nothing.jsonl", None, "there is no such file or folder"),
        ("x.bin", b"x", "unknown kind of file; allowed: a W&B run"),
        ("x.log", b"nothing of it\n", "no metrics in it: read are lines of verl"),
        ("x.jsonl", b"[1]\n", "no line of it is a JSON object"),
        ("x.jsonl", b'{"step": 1, "text": "a"}\n', "contains no number (JSONL)"),
        ("x.csv", b"", "no row in it"),
        ("x.csv", b"\x1b[2Ja" + b"b" * 90 + b",c\n1,2\n", f"it has: [2Ja{'b' * 36}, c"),
        ("x.jsonl", b'{"step": 1e308, "reward": 1}\n', "1 entries whose step is no whole number"),
        ("x.wandb", b"nonsense", "not a W&B run: it does not begin as one"),
        ("x.wandb", WANDB_HEADER[:-1] + b"\x09", "W&B file version 9; this version reads 0"),
        ("tfevents.1", b"\x00" * 40, "contains no number (TensorBoard)"),
        ("trainer_state.json", b"{}", "no log_history in it"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence_and_leaves_no_run(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LogImportError) as caught:
        import_log(path, tmp_path / "runs", "old")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_the_version_of_the_weights_is_what_the_log_says_or_unknown(tmp_path: Path) -> None:
    rows = [{"step": 1, "policy_version": 7}, {"step": 2, "reward": 1.0}, {"step": 3, "policy_version": 7.5}]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = import_log(path, tmp_path / "runs", "versions")
    table = frame(find(made.path), "metrics")
    assert table["version"].to_list() == [7, -1, -1]
    assert table["policy_version"].to_list() == [7.0, None, 7.5], "what the log says stays a metric of its own"


@pytest.mark.parametrize("between", [",", ";", "\t"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_tables_by_what_parts_their_columns(tmp_path: Path, between: str, suffix: str) -> None:
    path = tmp_path / f"log{suffix}"
    path.write_text(
        "\n".join(between.join(row) for row in (("Step", "reward", "note"), ("1", "0.5", "a"), ("2", "", "")))
    )
    assert [(row.step, row.values) for row in read(path).rows] == [(1, {"reward": 0.5})]


def test_a_chart_of_tensorboard(tmp_path: Path) -> None:
    path = tmp_path / "run-seed1-tag-train_reward.csv"
    path.write_text("Wall time,Step,Value\n1790000000.5,3,0.25\n1790000001.5,4,0.5\n")
    rows = read(path).rows
    assert [(row.step, row.time, row.values) for row in rows] == [
        (3, 1790000000.5, {"train/reward": 0.25}), (4, 1790000001.5, {"train/reward": 0.5}),
    ]  # fmt: skip


def test_a_chart_of_wandb_whose_lines_were_renamed(tmp_path: Path) -> None:
    path = tmp_path / "chart.csv"
    path.write_text('"Step","reward","reward__MIN","reward__MAX","odd__MIN"\n"1","0.5","0.4","0.6","7"\n')
    log = read(path)
    assert [row.values for row in log.rows] == [{"reward": 0.5, "odd__MIN": 7.0}]
    assert log.left.lines() == ["values of the chart's __MIN and __MAX columns: 2 (reward__MIN, reward__MAX)"]


def test_columns_without_a_name_or_with_one_twice_are_not_lost_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(",step,reward,reward\n7,1,0.5,0.25\n8,2,0.5,0.25,9\n")
    log = read(path)
    assert [row.values for row in log.rows] == [{"reward": 0.5, "reward (2)": 0.25}] * 2
    assert log.left.lines() == ["values of columns without a name: 3"]


def test_objects_within_objects(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    deep = '{"a":' * 3000 + "1" + "}" * 3000
    rows = ['{"step": 1, "reward": {"mean": 0.5}, "reward/mean": 0.25}', f'{{"step": 2, "x": {deep}}}']
    path.write_text("\n".join(rows) + "\n")
    log = read(path)
    assert [(row.step, row.values) for row in log.rows] == [(1, {"reward/mean": 0.25})]
    assert log.left.counts["numbers under a name that their entry has twice"] == 1
    assert log.left.counts["entries that are nested too deeply"] + log.left.counts["lines that are no JSON object"] == 1


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_what_is_no_file_is_not_read(device: str) -> None:
    with pytest.raises(LogImportError, match="not a regular file"):
        read(Path(device))
