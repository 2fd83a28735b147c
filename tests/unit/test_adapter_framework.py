"""Hooks in a framework that this test writes: when they are put in, which process joins, what is said without one."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from driftline.adapters.framework import MARK, Framework, Hook
from driftline.client import Client, attach
from driftline.frames import Event, Metrics
from tests.unit.hubs import Hub, until

LOOP = """
class Loop:
    def step(self, number):
        return number + 1
"""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> Path:
    """A framework `toyrl` 3.1 with one module, not yet imported."""
    for name in ("DRIFTLINE_RUN", "DRIFTLINE_KEY", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "site"
    (root / "toyrl").mkdir(parents=True)
    (root / "toyrl" / "__init__.py").write_text("")
    (root / "toyrl" / "loop.py").write_text(LOOP)
    (root / "toyrl-3.1.dist-info").mkdir()
    (root / "toyrl-3.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: toyrl\nVersion: 3.1\n")
    monkeypatch.syspath_prepend(str(root))
    stack.callback(lambda: [sys.modules.pop(name, None) for name in ("toyrl", "toyrl.loop")])
    return root


@pytest.fixture
def hub(tmp_path: Path, stack: ExitStack) -> Hub:
    hub = Hub(tmp_path)
    hub.start()
    stack.callback(hub.end)
    return hub


def toy_framework(stack: ExitStack, tested: tuple[str, ...] = ("3.0", "3.1")) -> Framework:
    framework = Framework("ToyRL", "toyrl", tested)
    stack.callback(framework.close)
    return framework


def step_hook(framework: Framework, path: str = "Loop.step", lost: str = "no step is recorded") -> Hook:
    def on_step(trainer: Any, result: int, loop: Any, number: int) -> None:
        del loop
        trainer.metrics({"toy/result": result}, step=number)

    return Hook("toyrl.loop", path, framework.after(on_step), lost)


def frames(client: Client, kind: type[Any]) -> list[Any]:
    return [frame for one in client.page(1).frames if isinstance(frame := one.frame(), kind)]


def events(client: Client, kind: str) -> list[str]:
    return [event.text for event in frames(client, Event) if event.kind == kind]


@pytest.mark.parametrize("imported", ["before", "after"])
def test_a_hook_is_put_in_whenever_the_module_is_imported_and_joins_when_reached(
    toy: Path, hub: Hub, stack: ExitStack, imported: str
) -> None:
    framework = toy_framework(stack)
    if imported == "before":
        importlib.import_module("toyrl.loop")
    assert framework.attach([step_hook(framework)], run=hub.run.path)
    assert framework.attach([step_hook(framework)], run=hub.run.path)  # twice does nothing more
    module = importlib.import_module("toyrl.loop")
    assert hasattr(module.Loop.step, MARK)
    assert not hasattr(getattr(module.Loop.step, MARK), MARK)
    client = stack.enter_context(Client(*attach(hub.run)))
    assert events(client, "adapter.joined") == []
    assert module.Loop().step(4) == 5
    until(lambda: frames(client, Metrics), "its number")
    assert [(one.step, one.values) for one in frames(client, Metrics)] == [(4, {"toy/result": 5.0})]
    assert len(events(client, "adapter.joined")) == 1


def test_without_a_run_nothing_is_wrapped(toy: Path, stack: ExitStack) -> None:
    framework = toy_framework(stack)
    assert not framework.attach([step_hook(framework)])
    assert not hasattr(importlib.import_module("toyrl.loop").Loop.step, MARK)


@pytest.mark.parametrize("path", ["Loop.gone", "Gone.step"])
def test_a_hook_that_is_gone_is_said_once_and_the_others_work(
    toy: Path, hub: Hub, stack: ExitStack, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    framework = toy_framework(stack)
    hooks = [
        step_hook(framework),
        step_hook(framework, path, "syncs are not recorded"),
        Hook("toyrl.other", "act", framework.before(lambda *_: None), "token pairs are not recorded"),
        Hook("toyrl.third", "act", framework.before(lambda *_: None)),  # another hook gives the same
    ]
    framework.attach(hooks, run=hub.run.path)
    importlib.import_module("toyrl.loop").Loop().step(1)
    importlib.import_module("toyrl.loop").Loop().step(2)
    client = stack.enter_context(Client(*attach(hub.run)))
    until(lambda: len(frames(client, Metrics)) == 2, "both numbers")
    said = {
        f"ToyRL 3.1: toyrl.loop.{path} is not there, so that syncs are not recorded",
        "ToyRL 3.1: toyrl.other.act is not there, so that token pairs are not recorded",
    }
    assert sorted(events(client, "adapter.hook-missing")) == sorted(said)
    lines = [record.getMessage() for record in caplog.records]
    assert all(lines.count(f"driftline: {text}") == 1 for text in said)


@pytest.mark.parametrize(
    ("tested", "words"),
    [
        (("2.0", "2.4"), "3.1 is newer than what this adapter was tested with (2.0 to 2.4)"),
        (("4.0",), "3.1 is older than what this adapter was tested with (4.0)"),
    ],
)
def test_a_release_that_was_not_tested_says_so_and_gives_what_it_can(
    toy: Path, hub: Hub, stack: ExitStack, tested: tuple[str, ...], words: str
) -> None:
    framework = toy_framework(stack, tested)
    framework.attach([step_hook(framework)], run=hub.run.path)
    importlib.import_module("toyrl.loop").Loop().step(1)
    client = stack.enter_context(Client(*attach(hub.run)))
    until(lambda: frames(client, Metrics), "its number")
    assert events(client, "adapter.untested") == [f"ToyRL 3.1: {words}: it gives what it can"]


def test_an_error_of_ours_never_reaches_the_framework(toy: Path, hub: Hub, stack: ExitStack) -> None:
    framework = toy_framework(stack)

    def broken(trainer: Any, *args: Any) -> None:
        raise ZeroDivisionError("of ours")

    framework.attach([Hook("toyrl.loop", "Loop.step", framework.before(broken), "all")], run=hub.run.path)
    loop = importlib.import_module("toyrl.loop").Loop()
    assert (loop.step(1), loop.step(2)) == (2, 3)
    client = stack.enter_context(Client(*attach(hub.run)))
    until(lambda: events(client, "adapter.failed"), "the event")
    assert events(client, "adapter.failed") == ["Loop.step: ZeroDivisionError: of ours"]


def test_a_run_that_is_not_there_leaves_the_framework_as_it_is(
    toy: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DRIFTLINE_RUN", str(toy / "none"))
    framework = toy_framework(stack)
    framework.attach([step_hook(framework)])
    assert importlib.import_module("toyrl.loop").Loop().step(1) == 2
    assert sum("inert" in record.getMessage() for record in caplog.records) == 1
