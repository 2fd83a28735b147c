"""How engines start, die and end, on the real vLLM; each test starts its own, for a process has one pool at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from engine import EngineError, RolloutRequest
from tests.e2e import engine_support as support
from tests.e2e.engine_support import CLOSE

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


def test_two_engines_share_the_work_and_a_dead_one_is_named(tmp_path: Path) -> None:
    model = support.engine_model(tmp_path / "model")
    said: list[str] = []
    pool = support.engine_pool(tmp_path / "model", tmp_path / "logs", said, count=2)
    outside = set(psutil.Process().children(recursive=True))
    try:
        pool.start()
        assert [line.split(":")[0] for line in said if "ready in" in line] == pool.names == ["engine-0", "engine-1"]
        groups = support.engine_rollouts(pool, 16)
        assert {group.engine for group in groups} == set(pool.names)
        assert support.engine_gap(model, groups).mean() < CLOSE
        first = {s.ids.tobytes() for g in groups if g.engine == "engine-0" for s in g.sequences}
        assert not first & {s.ids.tobytes() for g in groups if g.engine == "engine-1" for s in g.sequences}

        other = support.engine_moved(model, head_only=True)
        reports = pool.sync(other.state_dict(), 5)
        assert [(r.engine, r.ok, r.version_after) for r in reports] == [("engine-0", True, 5), ("engine-1", True, 5)]
        assert [s.effective for s in pool.set_fix("processed-logprobs", "off")] == ["off", "off"]
        assert [s.effective for s in pool.set_fix("processed-logprobs", "on")] == ["on", "on"]
        assert support.engine_gap(other, support.engine_rollouts(pool, 8)).mean() < CLOSE

        ours = set(psutil.Process().children(recursive=True)) - outside
        assert len(ours) > 6  # two actors, cores and workers, and Ray
        assert support.engine_sockets(ours) == set()
        os.kill(pool.infos[1].pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="engine-1: its process died"):
            pool.take(support.LIMIT_S)
        with pytest.raises(EngineError, match="engine-1"):
            pool.sync(other.state_dict(), 6)
        with pytest.raises(EngineError, match="engine-1"):
            pool.submit(RolloutRequest(0, [2, 3], 1))
        assert pool.stats().engines[0].engine == "engine-0"
    finally:
        pool.close()
    pool.close()
    assert not support.engine_left(ours)
    assert not set(psutil.Process().children(recursive=True)) - outside
    with pytest.raises(EngineError):
        pool.take(0.1)


def test_vllm_that_refuses_the_model_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    support.engine_model(tmp_path / "model")
    outside = set(psutil.Process().children(recursive=True))
    pool = support.engine_pool(tmp_path / "model", tmp_path / "logs", [], max_model_len=4096)
    with pytest.raises(EngineError, match=r"engine-0: vLLM did not start: .*max_model_len.*engine-0\.log"):
        pool.start()
    assert not set(psutil.Process().children(recursive=True)) - outside


INTERRUPTED = """
import sys
from pathlib import Path
from tests.e2e import engine_support as support

class Said(list):
    def append(self, line):
        print(line, flush=True)

folder = Path(sys.argv[1])
support.engine_model(folder / "model")
support.engine_pool(folder / "model", folder / "logs", Said()).start()
"""


def test_ctrl_c_while_loading_leaves_no_process(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    watched: set[psutil.Process] = set()
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if "loading vLLM and the model (1" in line:  # ten seconds in: vLLM has its own processes by then
                break
        watched = set(psutil.Process(child.pid).children(recursive=True))
        assert watched
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=support.LIMIT_S)
        assert "KeyboardInterrupt" in errors
        assert not support.engine_left(watched)
    finally:
        for process in watched:
            if process.is_running():
                process.kill()
        child.kill()
