"""A real GRPO run of TRL's, joined by one line, vLLM in its process: seen, switched, synced and ended by a console.

`make join` runs it alone. Where TRL is not installed this file is skipped and says so.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import pytest

from driftline.client import Client, attach
from driftline.config import ModelConfig
from driftline.frames import Ack, EngineState, Event, Frame, Metrics, RunState, Span, Tokens
from tests.e2e import join_support as joins
from tests.tui.test_pty import Terminal
from tests.unit.hubs import Hub, until
from trainer.learn.tiny_model import make_model, make_tokenizer

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        importlib.util.find_spec("trl") is None,
        reason="TRL is not installed here; it is in constraints.txt, which make venv installs",
    ),
]

LIMIT = 300.0
STEPS_EACH = 6
"""Steps on either side of a switch."""


class Run:
    """The hub, a client of it, and the trainer's process."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder, self.hub = folder, hub
        model = make_model(ModelConfig(), seed=0, max_length=256)
        model.lm_head.weight.data.mul_(8)  # far from flat, so that a temperature is seen in the logprobs
        model.save_pretrained(folder / "model")
        make_tokenizer().save_pretrained(folder / "model")
        self.env = joins.environment(folder, DRIFTLINE_RUN=str(self.hub.run.path))
        command = [sys.executable, "-m", "tests.join.trl_run", str(folder / "model"), str(folder / "out"), "5000"]
        self.trainer = joins.Child(command, self.env, folder / "trl.log")
        self.client = Client(*attach(self.hub.run))
        self._frames: list[Frame] = []
        self._next = 1

    def frames(self) -> list[Frame]:
        """All frames so far."""
        while (page := self.client.page(self._next)).frames:
            self._frames += [one.frame() for one in page.frames]
            self._next = page.frames[-1].seq + 1
        return self._frames

    def until(self, condition, what: str) -> None:  # type: ignore[no-untyped-def]
        def met() -> object:
            self.trainer.check()
            return condition()

        until(met, what, LIMIT)

    def values(self, name: str) -> dict[int, float]:
        """A metric by step."""
        return {one.step: one.values[name] for one in self.frames() if isinstance(one, Metrics) and name in one.values}

    def step(self) -> int:
        return max((one.step for one in self.frames() if isinstance(one, RunState)), default=0)

    def after(self, step: int, count: int = STEPS_EACH) -> list[float]:
        """|engine - trainer| in `count` steps that began after this one had ended."""
        name, first = "mismatch/abs_diff_mean", step + 2
        self.until(lambda: max(self.values(name), default=0) >= first + count - 1, f"{count} steps")
        return [value for at, value in sorted(self.values(name).items()) if at >= first][:count]

    def cli(self, *words: str) -> str:
        """A verb of the command line, as an operator types it."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
        done = subprocess.run(
            [sys.executable, "-P", "-m", "console.cli", *words],
            capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL,
            env=clean | {"DRIFTLINE_RUN": str(self.hub.run.path), "PYTHONPATH": str(joins.ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def ask(self, verb, **arguments: str) -> Ack:  # type: ignore[no-untyped-def]
        return self.client.wait(self.client.command(verb, arguments, timeout=LIMIT), LIMIT)

    def close(self) -> None:
        self.client.close()
        self.trainer.end()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("trl")
    hub = Hub(folder)
    try:
        hub.start()
        run = Run(folder, hub)
        try:
            yield run
        finally:
            run.close()
    finally:
        hub.end()


def test_it_joins_with_its_engine_and_reports_all_that_trl_has(run: Run) -> None:
    run.until(lambda: run.step() >= 3, "steps")
    states = [one for one in run.frames() if isinstance(one, RunState)]
    assert (states[-1].steps, states[-1].temperature, states[-1].objective) == (5000, 0.7, "dapo")
    assert any(isinstance(one, EngineState) and one.engine == "engine-0" for one in run.frames())
    for name in ("reward/mean", "policy/kl_ref", "policy/entropy", "policy/clip_fraction", "mismatch/abs_diff_mean"):
        assert run.values(name), name
    tokens = next(one for one in run.frames() if isinstance(one, Tokens))
    assert all(text.startswith("reverse:10") for text in tokens.prompts), tokens.prompts
    assert len(tokens.pieces) == tokens.n
    assert tokens.rewards
    assert tokens.version >= 0
    ours, theirs = run.values("mismatch/abs_diff_mean"), run.values("log/sampling/sampling_logp_difference/mean")
    both = sorted(ours.keys() & theirs.keys())
    assert both
    assert [ours[step] for step in both] == pytest.approx([theirs[step] for step in both], rel=1e-3), "TRL's own number"


def test_the_weights_of_each_step_reach_the_engine(run: Run) -> None:
    run.until(lambda: run.step() >= 5, "steps")
    spans = [one for one in run.frames() if isinstance(one, Span)]
    assert [one.version_after for one in spans[:4]] == [0, 1, 2, 3]
    assert all(one.ok for one in spans)
    found = run.values("mismatch/abs_diff_mean")
    assert found[5] < 5 * found[1], "the engine samples by the weights that the trainer scores with"


def test_a_fix_is_switched_live_in_its_engine_and_its_effect_is_seen(run: Run) -> None:
    run.until(lambda: run.step() >= 3, "steps")
    before = mean(run.after(run.step()))
    run.cli("fix", "set", "processed-logprobs", "off", "--wait", "--timeout", "300")
    off = mean(run.after(run.step()))
    run.cli("fix", "set", "processed-logprobs", "on", "--wait", "--timeout", "300")
    on = mean(run.after(run.step()))
    print(f"mean |engine - trainer|: on {before:.2e}, off {off:.2e}, on again {on:.2e}")
    assert off > 4 * max(before, on), (before, off, on)


def test_a_sync_is_made_at_the_trainers_boundary(run: Run) -> None:
    run.until(lambda: run.step() >= 3, "steps")
    ack = run.ask("sync")
    assert ack.state == "applied", ack
    spans = [one for one in run.frames() if isinstance(one, Span) and one.sync == ack.data["sync"]]
    assert [one.version_after for one in spans] == [ack.data["step"]] == [ack.data["version"]]
    run.until(lambda: run.step() >= int(ack.data["step"]) + 2, "steps after it")
    made = [one.version_after for one in run.frames() if isinstance(one, Span)]
    assert made.count(int(ack.data["version"])) == 1, "TRL need not send the same weights again"


def test_a_pause_holds_the_engine_and_so_the_trainer(run: Run) -> None:
    run.until(lambda: run.step() >= 3, "steps")
    assert run.ask("pause").state == "applied"
    run.until(lambda: [one for one in run.frames() if isinstance(one, EngineState)][-1].phase == "paused", "the pause")
    assert run.ask("resume").state == "applied"
    step = run.step()
    run.until(lambda: run.step() > step, "it to go on")


def test_the_console_shows_it(run: Run) -> None:
    run.until(lambda: run.step() >= 3, "steps")
    rows = json.loads(
        run.cli("query", 'SELECT step, "reward/mean", "policy/kl_ref" FROM metrics WHERE step > 1', "--format", "json")
    )
    assert rows
    assert all(set(row) >= {"step", "reward/mean", "policy/kl_ref"} for row in rows)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
    screen = Terminal(
        [sys.executable, "-P", "-m", "console.cli", "attach", str(run.hub.run.path)],
        clean | {"TERM": "xterm-256color", "PYTHONPATH": str(joins.ROOT)},
        (120, 40),
    )
    try:
        screen.until(
            lambda text: all(
                one in text for one in ("engine-0", "reward", "entropy", "KL to the ref", "mismatch", "on 1/1")
            )
        )
        print(screen.screen())
        screen.press(b"2")
        screen.until(lambda text: "reverse:10" in text)
        print(screen.screen())
    finally:
        screen.close()


def test_a_stop_ends_the_training_after_its_step(run: Run) -> None:
    ack = run.ask("stop")
    assert ack.state == "applied"
    until(lambda: run.trainer.process.poll() is not None, "the trainer to end", LIMIT)
    assert run.trainer.process.returncode == 0, run.trainer.log.read_text()[-3000:]
    until(lambda: [one for one in run.frames() if isinstance(one, RunState)][-1].status == "finished", "its last state")
    kinds = {one.kind for one in run.frames() if isinstance(one, Event)}
    assert kinds >= {"adapter.joined", "pairs.kind", "sync.done", "run.stop"}
    assert not kinds & {"adapter.failed", "adapter.hook-missing"}
