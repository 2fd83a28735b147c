"""Token files of prime-rl and NeMo-RL: the pairs that were written, each step once, nothing before it is whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from console.cli.main import main
from console.importing.import_run import import_log, read
from console.importing.rows import LogImportError, SeveralRunsError
from console.importing.token_files import NO_ID, NO_MASK, NO_SAMPLE, TokenFiles
from console.recorded.frames import frames
from driftline.frames import Metrics, Tokens, floats
from driftline.rundir import RunDir
from tests.unit.token_logs import nemo_rl, prime_rl

PAIRS = [[(-0.5, -0.25), (-1.0, -1.5)], [(-2.0, -2.0)]]
WRITERS = {"prime-rl": prime_rl, "NeMo-RL": nemo_rl}


def steps(files: TokenFiles, ended: bool = False) -> list[int]:
    return [one.step for one in files.poll(ended)]


@pytest.mark.parametrize("framework", WRITERS)
def test_pairs_are_those_of_the_sampled_tokens(tmp_path: Path, framework: str) -> None:
    WRITERS[framework](tmp_path, 7, PAIRS)
    [found] = TokenFiles(tmp_path).poll(ended=True)
    assert (found.step, found.framework) == (7, framework)
    assert found.pairs.rollout.tolist() == [-0.5, -1.0, -2.0]
    assert found.pairs.trainer.tolist() == [-0.25, -1.5, -2.0]
    assert found.pairs.ids.tolist() == [3, 4, 3]
    assert found.pairs.seq.tolist() == [0, 0, 1]
    assert found.pairs.position.tolist() == [0, 1, 0]
    assert found.pairs.rewards == ((1.0, 1.0) if framework == "prime-rl" else (0.25, 0.25))
    assert not found.left_out.counts


def test_samples_of_an_earlier_nemo_rl_have_neither_ids_nor_masks(tmp_path: Path) -> None:
    nemo_rl(tmp_path, 1, PAIRS, masks=False)
    [found] = TokenFiles(tmp_path).poll(ended=True)
    assert found.pairs.rollout.tolist() == [-0.5, -1.0, -2.0]
    assert set(found.pairs.ids.tolist()) == {NO_ID}
    assert found.left_out.counts == {NO_MASK: 2}


def test_a_step_is_given_once_and_not_before_it_is_whole(tmp_path: Path) -> None:
    files = TokenFiles(tmp_path)
    assert steps(files) == []
    prime_rl(tmp_path, 1, PAIRS)
    prime_rl(tmp_path, 10, PAIRS)
    folder = prime_rl(tmp_path, 2, PAIRS, stable=False)
    assert steps(files) == [1, 10]
    (folder / "STABLE").touch()
    assert steps(files) == [2]
    assert steps(files, ended=True) == []


def test_a_file_without_a_mark_is_whole_once_the_next_is_begun_or_it_rests(tmp_path: Path) -> None:
    files = TokenFiles(tmp_path)
    nemo_rl(tmp_path, 1, PAIRS)
    assert steps(files) == []
    with (tmp_path / "train_data_step1.jsonl").open("a") as file:
        file.write("\n")
    assert steps(files) == []
    assert steps(files) == [1]
    nemo_rl(tmp_path, 2, PAIRS)
    nemo_rl(tmp_path, 3, PAIRS)
    assert steps(files) == [2]
    assert steps(files, ended=True) == [3]


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b"null", b'{"token_ids": 1}', b"\xff\xfe", b"[" * 5000,
     b'{"token_ids":[1],"loss_mask":[true],"inference_logprobs":[],"trainer_logprobs":[-1]}',
     b'{"token_ids":[9223372036854775808],"loss_mask":[true],"inference_logprobs":[-1],"trainer_logprobs":[-1]}'],
)  # fmt: skip
def test_a_line_that_is_no_sequence_costs_no_other(tmp_path: Path, line: bytes) -> None:
    path = prime_rl(tmp_path, 1, PAIRS) / "rank_0.jsonl"
    path.write_bytes(line + b"\n" + path.read_bytes())
    [found] = TokenFiles(tmp_path).poll()
    assert len(found.pairs) == 3
    assert found.left_out.counts == ({NO_SAMPLE: 1} if line else {})


def test_files_of_several_runs_are_refused_with_their_names(tmp_path: Path) -> None:
    for run in ("a", "b"):
        prime_rl(tmp_path / run, 1, PAIRS)
    with pytest.raises(SeveralRunsError, match=r"2 runs in it: a/token_exports, b/token_exports; .* --only"):
        steps(TokenFiles(tmp_path))
    assert steps(TokenFiles(tmp_path, "a")) == [1]


def written(root: Path) -> list[Metrics | Tokens]:
    [run] = root.iterdir()
    found = [stamped.frame() for stamped in frames(RunDir(run))]
    return [frame for frame in found if isinstance(frame, (Metrics, Tokens))]


def log(root: Path, first: int, last: int) -> None:
    with (root / "metrics.jsonl").open("a") as file:
        for step in range(first, last + 1):
            file.write(json.dumps({"step": step, "reward/all/mean": step / 10}) + "\n")


def test_an_import_has_the_pairs_beside_the_numbers_of_their_step(tmp_path: Path) -> None:
    source, root = tmp_path / "outputs", tmp_path / "runs"
    for step in (1, 2, 3):
        prime_rl(source, step, PAIRS)
    log(source, 1, 4)
    assert "token" not in str(read(source).notes)
    report = import_log(source, root, "x")
    assert (report.token_steps, report.steps, report.known) == (3, 4, True)
    found = written(root)
    assert [frame.step for frame in found] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]
    tokens = next(frame for frame in found if isinstance(frame, Tokens))
    assert floats(tokens.rollout).tolist() == [-0.5, -1.0, -2.0]
    numbers = next(frame for frame in found if "mismatch/abs_diff_mean" in getattr(frame, "values", {}))
    assert numbers.values["mismatch/abs_diff_mean"] == pytest.approx(0.25)
    assert numbers.labels["mismatch/abs_diff_mean"] == "with staleness if async"


def test_pairs_of_a_resumed_run_belong_to_its_last_life(tmp_path: Path) -> None:
    source, root = tmp_path / "outputs", tmp_path / "runs"
    for step in (1, 2, 3, 4):
        prime_rl(source, step, PAIRS)
    log(source, 1, 3)
    log(source, 2, 4)
    import_log(source, root, "x")
    found = [
        (frame.step, "mismatch/abs_diff_mean" in frame.values) for frame in written(root) if isinstance(frame, Metrics)
    ]
    assert found == [(1, False), (1, True), (2, False), (3, False),
                     (2, False), (2, True), (3, False), (3, True), (4, False), (4, True)]  # fmt: skip


def test_token_files_alone_are_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    nemo_rl(tmp_path / "logs", 5, PAIRS)
    monkeypatch.setenv("DRIFTLINE_RUNS", str(tmp_path / "runs"))
    assert main(["import", str(tmp_path / "logs"), "--as", "x"]) == 0
    said = capsys.readouterr().out
    assert "token pairs of 1 step: mismatch/* computed from all of them" in said
    assert "no log is read" in said


def test_token_files_of_no_whole_step_are_no_run(tmp_path: Path) -> None:
    prime_rl(tmp_path / "logs", 5, PAIRS, stable=False)
    with pytest.raises(LogImportError, match="no step of its token files is whole yet"):
        import_log(tmp_path / "logs", tmp_path / "runs", "x")
    assert not list((tmp_path / "runs").iterdir())


def test_a_pickle_is_refused_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "7.pt"
    path.write_bytes(b"\x80\x04.")
    with pytest.raises(LogImportError, match=r"7\.pt: a pickle \(\.pt\) runs what stands in it"):
        read(path)


def test_many_tokens_are_read_in_one_pass(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    many = [[(float(one), float(one)) for one in -rng.exponential(size=200)] for _ in range(50)]
    prime_rl(tmp_path, 1, many)
    [found] = TokenFiles(tmp_path).poll()
    assert len(found.pairs) == 10_000
    np.testing.assert_array_equal(found.pairs.rollout, found.pairs.trainer)
