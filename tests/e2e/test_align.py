"""`driftline fix align` on the demonstration: a real vLLM and trainer at vLLM's defaults, one command, and home.

The demonstration's own check (`console/demo/report.py`) is the yardstick: as with the fixes by hand. The run of
`test_parity.py`, which is of half the size, is brought home by the same command at every scale.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console.demo.report import MISMATCH, MISMATCH_FALL, REWARD, REWARD_GAIN
from driftline.frames import FixState
from tests.e2e.live_run import LIMIT_S, REPOSITORY, FollowedRun, LiveRun
from tests.faults.scale import FULL

pytestmark = [pytest.mark.engine]

WRONG = 45
"""Steps on vLLM's defaults, as in the demonstration."""
SINCE = 45
"""Steps after which it must be home, as there."""
FIXES = ("processed-logprobs", "prefix-cache-off", "fp32-lm-head")


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveRun]:
    config = (REPOSITORY / "configs" / "demo.toml").read_text(encoding="utf-8")
    run = LiveRun(tmp_path, config)
    yield run
    run.close()


def align(live: FollowedRun, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "console.cli", "fix", "align", "--yes", "--json", *arguments]
    done = subprocess.run(
        [*command, "--run", str(live.run.path), "--timeout", str(LIMIT_S)],
        capture_output=True, text=True, timeout=3 * LIMIT_S, cwd=REPOSITORY, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr)
    print(done.stdout)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def effective(live: FollowedRun) -> dict[str, str]:
    return {state.fix: state.effective for state in live.frames(FixState)}


def mean(live: LiveRun, metric: str, first: int, last: int) -> float:
    values = [values[metric] for step, values in live.steps().items() if first <= step <= last and metric in values]
    return sum(values) / len(values)


@pytest.mark.skipif(
    not FULL,
    reason="a hundred steps of the demonstration take two minutes; test_parity.py has the command bring a run of half "
    "its size to its reference, and set it back; `make faults` runs this",
)
def test_one_command_brings_the_demonstration_home_and_one_sets_it_back(live: LiveRun) -> None:
    trainer = live.train()
    live.wait(lambda: max(live.steps(), default=0) >= WRONG, trainer, 3 * LIMIT_S)
    begun = max(live.steps())
    found = align(live, "--steps", "10")
    set_ = {one["fix"] for one in found["settings"]}
    assert "processed-logprobs" in set_
    assert set_ <= set(FIXES) | {"inflight-keep"}
    assert all(one["state"] == "applied" for one in found["commands"])
    assert all(effective(live)[fix] == "on" for fix in set_ & set(FIXES))
    assert found["changes"][MISMATCH]["after"] < found["changes"][MISMATCH]["before"] / 3
    ended = max(live.steps())
    live.wait(lambda: max(live.steps()) >= ended + SINCE, trainer, 3 * LIMIT_S)
    last = max(live.steps())
    fall = mean(live, MISMATCH, begun - 9, begun) / mean(live, MISMATCH, last - 9, last)
    gain = mean(live, REWARD, last - 9, last) - mean(live, REWARD, begun - 9, begun)
    print(f"why: {found['why']}; set: {sorted(set_)}; mismatch {fall:.0f} times smaller, reward {gain:+.2f}")
    assert fall >= MISMATCH_FALL
    assert gain >= REWARD_GAIN
    back = align(live, "--undo", "--steps", "0")
    assert {one["fix"] for one in back["settings"]} == set_
    assert all(effective(live)[fix] == "off" for fix in set_ & set(FIXES))
