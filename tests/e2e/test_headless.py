"""Every headless verb against a real hub with the synthetic feed behind it: processes, sockets, keys and journal.

The feed stands for no engine; what the same verbs do to a real one is tested with the engine's own tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from driftline.catalog.metrics import METRICS
from driftline.frames import Metrics
from driftline.journal.journal import read
from driftline.rundir import RunDir, list_runs
from tests import signals

LIMIT = 60.0


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"waited {LIMIT:.0f} s for: {what}"
        time.sleep(0.05)


class Feed:
    """A `driftline simulate` and the verbs pointed at it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
        self.environment = clean | {"DRIFTLINE_RUNS": str(folder / "runs")}
        self.log = folder / "simulate.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.command("simulate", *options),
                env=self.environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=signals.restore_defaults,
            )
        until(lambda: "ctrl-C" in self.log.read_text() or self.process.poll() is not None, "the synthetic feed")
        assert self.process.poll() is None, self.log.read_text()

    @staticmethod
    def command(*args: str) -> list[str]:
        return [sys.executable, "-P", "-m", "console.cli", *args]

    def __call__(self, *args: str, code: int = 0) -> str:
        done = subprocess.run(
            self.command(*args),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, (args, done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stderr

    def status(self) -> dict[str, object]:
        return json.loads(self("status", "--json"))  # type: ignore[no-any-return]

    def mismatch(self) -> float:
        return float(self.status()["metrics"]["values"]["mismatch/abs_diff_mean"])  # type: ignore[index, call-overload]

    @property
    def run(self) -> RunDir:
        return list_runs(self.folder / "runs")[0]


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Feed]:
    made = Feed(tmp_path_factory.mktemp("feed"), "--steps", "0", "--rate", "10", "--engines", "2")
    yield made
    made.process.send_signal(signal.SIGINT)
    assert made.process.wait(LIMIT) == 130, made.log.read_text()
    assert not made.run.live()


def test_status_is_one_line_that_says_synthetic(feed: Feed) -> None:
    until(lambda: " step " in feed("status"), "the first step")
    line = feed("status")
    assert line.count("\n") == 1
    words = line.split()
    assert words[0] == feed.run.id
    assert words[1] == "SYNTHETIC"
    assert words[-3:] == ["2/2", "engines", "running"]
    assert {"R", "KL", "H", "mm", "lag"} <= set(words)


def test_status_json(feed: Feed) -> None:
    status = feed.status()
    assert status["run"] == feed.run.id
    assert (status["live"], status["synthetic"], status["status"]) == (True, True, "running")
    # Without a share of shadow scoring there is nothing of it.
    wanted = {metric.name for metric in METRICS if not metric.name.startswith("shadow/")}
    assert set(status["metrics"]["values"]) == wanted  # type: ignore[index, call-overload]
    assert [engine["engine"] for engine in status["engines"]] == ["engine-0", "engine-1"]  # type: ignore[attr-defined]


def test_list_says_synthetic(feed: Feed) -> None:
    assert feed("list").split()[-1] == "synthetic"
    assert [row["synthetic"] for row in json.loads(feed("list", "--json"))] == [True]


def test_tail_prints_steps_in_order_for_so_long(feed: Feed) -> None:
    before = time.monotonic()
    lines = feed("tail", "--seconds", "2").splitlines()
    assert time.monotonic() - before >= 2.0
    assert any("SYNTHETIC" in line for line in lines)
    steps = [int(line.split()[1]) for line in lines if line[:2].isdigit() and line.split()[1].isdigit()]
    assert len(steps) > 10
    assert steps == list(range(steps[0], steps[0] + len(steps))), "a step is missing, double or out of order"


def test_tail_of_a_closed_pipe_is_quiet(feed: Feed) -> None:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} -P -m console.cli tail --seconds 30 | head -n 3"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=feed.environment,
        cwd=feed.folder,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 3


def test_a_fix_is_on_when_every_engine_says_so(feed: Feed) -> None:
    feed("fix", "set", "processed-logprobs", "off", "--wait")
    wrong = feed.mismatch()
    answer = json.loads(feed("fix", "set", "processed-logprobs", "on", "--wait", "--json"))
    assert answer["state"] == "applied"
    assert answer["fix"]["settled"] is True
    assert [engine["effective"] for engine in answer["fix"]["engines"]] == ["on", "on"]
    assert answer["fix"]["by"] == "operator local"
    until(lambda: feed.mismatch() < wrong / 3, "the effect of the fix")
    listed = {fix["id"]: fix for fix in json.loads(feed("fix", "list", "--json"))}
    assert listed["processed-logprobs"]["effective"] == "on"
    assert "● processed-logprobs" in feed("fix", "list")


def test_a_fix_at_the_next_sync(feed: Feed) -> None:
    assert "● inflight-keep" in feed("fix", "set", "inflight-keep", "on", "--wait")


def test_a_fix_that_is_not_available_is_refused(feed: Feed) -> None:
    said = feed("fix", "set", "async-scheduling-off", "on", "--wait", code=1)
    assert "not available here" in said
    assert "not available here" in feed("fix", "list")


def test_a_command_that_no_client_waits_for(feed: Feed) -> None:
    answer = json.loads(feed("fix", "set", "fp32-lm-head", "on", "--json"))
    assert answer["state"] == "queued"
    assert answer["command"]
    listing = lambda: {fix["id"]: fix["effective"] for fix in json.loads(feed("fix", "list", "--json"))}  # noqa: E731
    until(lambda: listing()["fp32-lm-head"] == "on", "the fix")


def test_sync_returns_the_phases_of_every_engine(feed: Feed) -> None:
    answer = json.loads(feed("sync", "--wait", "--json"))
    assert [engine["engine"] for engine in answer["engines"]] == ["engine-0", "engine-1"]
    for engine in answer["engines"]:
        assert engine["version_after"] <= answer["version"]
        parts = [engine[f"{phase}_s"] for phase in ("pause", "load", "verify", "reset", "resume")]
        assert sum(parts) == pytest.approx(engine["total_s"], abs=1e-5)  # a difference of Unix times
    lines = feed("sync", "--wait").splitlines()
    assert lines[0].startswith("engine-0  v")
    assert "pause" in lines[0]
    assert "resume" in lines[1]


def test_pause_and_resume(feed: Feed) -> None:
    assert feed("pause", "--wait").startswith("pause: applied")
    try:
        paused = feed.status()
        assert (paused["status"], paused["paused_by"]) == ("paused", "operator local")
        time.sleep(0.5)
        assert feed.status()["step"] == paused["step"], "a paused run makes no steps"
        assert "2/2 engines paused" in feed("status")
    finally:  # the feed is that of the whole file
        resumed = feed("resume", "--wait")
    assert resumed.startswith("resume: applied")
    until(lambda: feed.status()["step"] > paused["step"], "steps after the pause")  # type: ignore[operator]


def test_wait_times_out_with_its_own_code(feed: Feed) -> None:
    # Between two syncs there is time enough for this fix not to have happened.
    feed("pause", "--wait")
    try:
        said = feed("fix", "set", "inflight-keep", "off", "--wait", "--timeout", "1", code=4)
    finally:  # the feed is that of the whole file
        feed("resume", "--wait")
    assert "no final answer within 1 s" in said


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".ndjson", ".arrow"])
def test_export_of_a_live_run(feed: Feed, suffix: str) -> None:
    said = feed("export", "--out", f"live{suffix}")
    out = feed.folder / f"live{suffix}"
    readers = {".parquet": pl.read_parquet, ".csv": pl.read_csv, ".ndjson": pl.read_ndjson, ".arrow": pl.read_ipc}
    frame = readers[suffix](out)
    assert said == f"{out.name}: {frame.height} rows, {frame.width} columns\n"
    journaled = {f.step: f for f in (s.frame() for s in read(feed.run.journal)) if isinstance(f, Metrics)}
    assert frame["step"].to_list() == sorted(journaled)[: frame.height]
    for row in frame.iter_rows(named=True):
        values = {name: row[name] for name in journaled[row["step"]].values}
        assert values == journaled[row["step"]].values
    assert frame["synthetic"].all()


def test_killing_a_reader_changes_nothing(feed: Feed) -> None:
    reader = subprocess.Popen(feed.command("tail"), env=feed.environment, cwd=feed.folder, stdout=subprocess.PIPE)
    assert reader.stdout is not None
    reader.stdout.readline()
    reader.kill()
    reader.wait()
    step = feed.status()["step"]
    until(lambda: feed.status()["step"] > step, "steps after the reader's death")  # type: ignore[operator]


def test_a_killed_hub_comes_back_and_nothing_is_lost(feed: Feed) -> None:
    first = feed.run.connection().pid
    os.kill(first, signal.SIGKILL)
    until(lambda: feed.run.live() and feed.run.connection().pid != first, "another hub")
    step = feed.status()["step"]
    until(lambda: feed.status()["step"] > step, "steps over the new hub")  # type: ignore[operator]
    journaled = [f.step for f in (s.frame() for s in read(feed.run.journal)) if isinstance(f, Metrics)]
    assert journaled == list(range(1, len(journaled) + 1))


def test_stop_ends_the_feed_and_its_hub(tmp_path: Path) -> None:
    feed = Feed(tmp_path, "--steps", "0")
    until(lambda: " step " in feed("status"), "the first step")
    assert feed("stop", "--wait") == f"run {feed.run.id} has ended\n"
    assert feed.process.wait(LIMIT) == 0
    assert "finished" in feed("status", "--run", feed.run.id)
    assert feed("tail", "--run", feed.run.id).rstrip().endswith("run: finished")
    assert "no live run" in feed("status", code=3)


def test_a_feed_with_an_end_ends(tmp_path: Path) -> None:
    feed = Feed(tmp_path, "--steps", "20", "--rate", "50", "--engines", "1")
    assert feed.process.wait(LIMIT) == 0
    feed("export", "--run", feed.run.id, "--out", "m.parquet")
    frame = pl.read_parquet(tmp_path / "m.parquet")
    assert frame["step"].to_list() == list(range(1, 21))
    assert pl.read_parquet_metadata(tmp_path / "m.parquet")["driftline.synthetic"] == "true"


def test_a_hub_for_a_trainer_of_another_program(tmp_path: Path) -> None:
    environment = os.environ | {"DRIFTLINE_RUNS": str(tmp_path / "runs")}
    log = tmp_path / "hub.log"
    with open(log, "wb") as out:
        hub = subprocess.Popen(
            Feed.command("hub", "--name", "mine"),
            env=environment,
            cwd=tmp_path,
            stdout=out,
            stderr=subprocess.STDOUT,
            preexec_fn=signals.restore_defaults,
        )
    try:
        until(lambda: "ctrl-C" in log.read_text() or hub.poll() is not None, "the hub")
        exported = next(line for line in log.read_text().splitlines() if "export DRIFTLINE_RUN=" in line)
        theirs = (
            "from driftline import Probe\n"
            "with Probe() as probe:\n"
            "    probe.emit({'reward/mean': 0.25, 'kl_new_old': 0.5}, step=1)\n"
            "    assert probe.flush(30)\n"
        )
        environment["DRIFTLINE_RUN"] = exported.rpartition("=")[2]
        subprocess.run([sys.executable, "-P", "-c", theirs], env=environment, cwd=tmp_path, check=True, timeout=LIMIT)
        done = subprocess.run(
            Feed.command("status"), env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
        )
        assert "step 1" in done.stdout
        assert "R .25 KL .5! live" in done.stdout
        assert "SYNTHETIC" not in done.stdout
        again = subprocess.run(
            Feed.command("hub", "--run", environment["DRIFTLINE_RUN"]),
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert again.returncode == 1
        assert "has a hub already" in again.stderr
    finally:
        hub.send_signal(signal.SIGINT)
        assert hub.wait(LIMIT) == 130
