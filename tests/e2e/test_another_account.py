"""A run joined over a real SSH from another user's account, with a connection file and a producer's key alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from console.errors import OK
from driftline.client import Client, attach
from driftline.frames import EngineState, Event, Metrics
from tests import signals
from tests.e2e import another_account
from tests.e2e.another_account import ROOT, Account
from tests.unit.hubs import Hub, until

pytestmark = pytest.mark.timeout(600)

LOOP = """
import getpass, sys
from pathlib import Path
from driftline import Probe
from driftline.keys import load_file
from driftline.rundir import read_connection

probe = Probe("trainer", connection=read_connection(Path("connection.json")), keys=load_file(Path("loop.key")))
for step in range(20):
    probe.emit({"reward/mean": 0.05 * step}, step=step, version=step)
probe.event("data.epoch", f"by {getpass.getuser()}", step=19)
sys.exit(not probe.flush(60.0))
"""


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    another_account.needed()
    account = Account(tmp_path_factory.mktemp("account"))
    try:
        yield account
    finally:
        account.remove()


def bring_key(account: Account, hub: Hub, name: str, kind: str, produces: str) -> None:
    """Make a producer's key as an operator does, and copy it and the connection file into the account's home."""
    words = ["keys", "new", name, "--run", str(hub.run.path), "--producer", kind, "--produces", produces]
    made = subprocess.run([sys.executable, "-m", "console.cli", *words], capture_output=True, text=True, check=False)
    assert made.returncode == OK, made.stderr
    account.copy(hub.run.connection_file, hub.run.keys / f"{name}.key")


def bring_what_vllm_knows(account: Account) -> None:
    """What vLLM has found out about models: an account that it is new to first has it import itself once more."""
    found = Path(os.environ.get("VLLM_CACHE_ROOT") or Path.home() / ".cache" / "vllm") / "modelinfos"
    if found.is_dir():
        shutil.copytree(found, account.home / ".cache" / "vllm" / "modelinfos")


def test_a_loop_of_ones_own(account: Account, hub: Hub) -> None:
    bring_key(account, hub, "loop", "trainer", "trainer")
    assert account.run("ls", str(hub.run.path)).returncode != 0, "the run's directory is closed to it"
    for name in ("connection.json", "loop.key"):
        found = (account.home / name).stat()
        assert (found.st_uid, found.st_mode & 0o777) == (account.uid, 0o600)
    (account.home / "loop.py").write_text(LOOP)
    account.own()
    there = another_account.variables({"PYTHONPATH": str(ROOT)})
    done = account.run(account.python, "loop.py", **there)
    assert done.returncode == OK, done.stderr
    with Client(*attach(hub.run)) as client:
        frames = [one.frame() for one in client.page(1, timeout=30.0).frames]
    steps = [frame.step for frame in frames if isinstance(frame, Metrics)]
    assert steps == list(range(20))
    assert f"by {account.user}" in [frame.text for frame in frames if isinstance(frame, Event)]


@pytest.mark.engine
def test_an_engine(account: Account, tmp_path: Path) -> None:
    """A synchronous `LLM` of the other user's: seen, switched while it samples, and again after its hub has died."""
    from tests.e2e import engine_support as support
    from tests.e2e import join_support as joins
    from tests.e2e.test_join import Run, check_state, serves_while_its_hub_is_dead, switch_while_it_samples

    class There(joins.Script):
        """The same script, started through ssh; its standard input and output are those of the connection."""

        def __init__(self, log: Path, **variables: str) -> None:
            script = account.home / "sample.py"  # a module of the name of a package of ours would be found before it
            script.write_text(joins.SYNC)
            words = [account.python, str(script), str(account.home / "model"), json.dumps(joins.ARGUMENTS)]
            account.own()
            self.log, self.printed = log, []
            self._out = log.open("w")
            self.process = subprocess.Popen(
                account.command(*words, str(support.TEMPERATURE), str(joins.TOKENS), **variables),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._out, text=True,
                preexec_fn=signals.restore_defaults,
            )  # fmt: skip

    hub = Hub(tmp_path)
    hub.start()
    try:
        with Client(*attach(hub.run)) as client:
            run = Run(hub, client, tmp_path, joins.model_with_tokenizer(account.home / "model"))
            bring_key(account, hub, "engines", "engine", "engine-*")
            bring_what_vllm_knows(account)
            env = joins.environment(account.home)
            there = another_account.variables(env) | {
                "DRIFTLINE_RUN": str(account.home / "connection.json"),
                "DRIFTLINE_KEY": str(account.home / "engines.key"),
                "VLLM_WORKER_MULTIPROC_METHOD": "fork",
            }
            script = There(tmp_path / "there.log", **there)
            try:
                script.wait()
                run.until(lambda: [one for one in run.frames() if isinstance(one, EngineState)], "an engine")
                (name,) = [one.engine for one in run.frames() if isinstance(one, EngineState)]
                assert name.startswith("engine-"), "the default name, which has the machine's in it"
                assert name.endswith("-0"), name
                switch_while_it_samples(run, script, name)
                state = check_state(run, name)
                assert psutil.Process(state.pid).uids().real == account.uid
                assert state.key.startswith("producer engine-*")
                serves_while_its_hub_is_dead(run, script)
            finally:
                assert script.process.stdin is not None
                script.process.stdin.close()  # its loop ends with its input
                script.process.wait(support.LIMIT_S)
                script.end()
            until(lambda: not account.processes(), "its processes to end")
    finally:
        hub.end()
