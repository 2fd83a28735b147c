"""`driftline migrate` on real engines: the same vLLM on two interpreters agrees with itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from console.environments.page import LEAST
from tests.e2e.engine_support import CLOSE
from tests.e2e.shadow_rig import other_interpreter

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


def test_a_version_agrees_with_itself_as_it_comes(tmp_path: Path) -> None:
    python = other_interpreter(tmp_path / "venv")
    done = subprocess.run(
        [sys.executable, "-m", "console.cli", "migrate", "this", str(python), "--count", "6", "--json",
         "--folder", str(tmp_path / "kept")],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert "agree as they come" in found["verdict"]
    assert found["defaults"] == []
    assert [row["fix"] for row in found["rows"]] == ["", "processed-logprobs", "prefix-cache-off"]
    *_, processed, fresh = found["rows"]
    for direction in ("from_by_to", "to_by_from"):
        assert fresh[direction]["tokens"] >= LEAST
        assert fresh[direction]["mean"] < CLOSE
    # Raw logprobs are off by the temperature, and blocks of older weights by the update: torch has neither.
    assert found["rows"][0]["from_torch"]["mean"] > 100 * CLOSE
    assert processed["to_torch"]["mean"] > 100 * CLOSE > CLOSE > fresh["to_torch"]["mean"]
    assert found["sides"][1]["python"] == str(python)
    assert {path.name for path in (tmp_path / "kept").iterdir()} >= {"answer.json", "logs", "order.json"}
