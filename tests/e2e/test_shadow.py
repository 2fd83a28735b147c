"""Two real engines in one pool, the second on another interpreter: each scores what the other has sampled."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.engine_support import CLOSE, PROMPT, VOCABULARY
from tests.e2e.shadow_rig import GROUPS, Rig, two_engines

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


def other_interpreter(folder: Path) -> Path:
    """A virtual environment of its own that sees this one's packages: another interpreter, the same versions."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    packages = Path(subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    (packages / "this.pth").write_text(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n")
    return python


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return other_interpreter(tmp_path_factory.mktemp("venv"))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, python: Path) -> Iterator[Rig]:
    with two_engines(tmp_path_factory.mktemp("shadow"), str(python)) as rig:
        yield rig


def test_an_engine_runs_on_the_interpreter_of_its_environment(rig: Rig, python: Path) -> None:
    own, other = rig.pool.infos
    assert (own.python, other.python) == (sys.executable, str(python))
    states = {state.engine: state for state in rig.pool.stats().engines}
    assert states["engine-1"].environment == str(python)
    assert states["engine-0"].environment == ""
    assert all(state.vllm for state in states.values())


def test_engines_with_the_fixes_on_agree_token_by_token_also_after_a_sync(rig: Rig) -> None:
    for pair, found in rig.compared().items():
        assert found.mean() < CLOSE, f"{pair}: {found.mean()} over {len(found)} tokens"
    reports = rig.sync(1)
    assert [report.ok for report in reports] == [True, True]
    assert len({report.digest for report in reports}) == 1
    assert {report.verified for report in reports} == {"held"}
    for pair, found in rig.compared().items():
        assert found.mean() < CLOSE, f"{pair} after the sync: {found.mean()} over {len(found)} tokens"


def test_raw_logprobs_of_one_engine_show_in_both_directions(rig: Rig) -> None:
    (report,) = rig.pool.set_fix("processed-logprobs", "off", "engine-1")
    assert (report.effective, report.wanted) == ("off", "off")
    try:
        for pair, found in rig.compared().items():
            assert found.mean() > 100 * CLOSE, f"{pair}: {found.mean()} over {len(found)} tokens"
    finally:
        rig.pool.set_fix("processed-logprobs", "on", "engine-1")
    for pair, found in rig.compared().items():
        assert found.mean() < CLOSE, f"{pair}, back on: {found.mean()}"


def test_a_stale_prefix_cache_of_one_engine_shows_in_both_directions(rig: Rig) -> None:
    """The same prompts before and after a sync: engine-1 goes on over blocks of the older weights."""
    prompts = np.random.default_rng(5).integers(2, VOCABULARY, (GROUPS, PROMPT)).tolist()
    rig.pool.set_fix("prefix-cache-off", "off", "engine-1")
    try:
        rig.compared(prompts=prompts)
        assert all(report.ok for report in rig.sync(2))
        for pair, found in rig.compared(prompts=prompts).items():
            assert found.mean() > 100 * CLOSE, f"{pair}: {found.mean()} over {len(found)} tokens"
    finally:
        rig.pool.set_fix("prefix-cache-off", "on", "engine-1")
    for pair, found in rig.compared(prompts=prompts).items():
        assert found.mean() < CLOSE, f"{pair}, back on: {found.mean()}"
