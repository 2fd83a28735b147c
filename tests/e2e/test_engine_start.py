"""Starts of engines that come to nothing, on the real vLLM: one that vLLM refuses, and one that is interrupted."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from engine import EngineError
from tests import signals
from tests.e2e import engine_support as support

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


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


def _core_begun(processes: set[psutil.Process]) -> bool:
    """Whether an actor's vLLM has processes of its own."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::EngineActo") and process.children():
                return True
    return False


def test_ctrl_c_while_loading_leaves_no_process(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=signals.restore_defaults,
    )
    watched: set[psutil.Process] = set()
    try:
        deadline = time.monotonic() + support.LIMIT_S
        while not _core_begun(watched):
            assert child.poll() is None, child.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
            watched = set(psutil.Process(child.pid).children(recursive=True))
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=support.LIMIT_S)
        assert "KeyboardInterrupt" in errors
        assert not support.engine_left(watched)
    finally:
        for process in watched:
            if process.is_running():
                process.kill()
        child.kill()
