"""A console's source before its hub is spoken to, while it is, and when that fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.connect.deferred_source import DeferredSource
from console.connect.source import SourceError
from console.connect.target import LocalRun
from console.errors import CommandError
from tests.unit.hubs import Hub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path)
    made.start()
    yield made
    made.end()


def test_before_it_is_opened_it_is_a_run_that_nothing_was_heard_of(hub: Hub) -> None:
    source = DeferredSource(LocalRun(hub.run), operate=True)
    assert source.run == hub.run.id
    assert source.link().state == "connecting"
    assert not source.wait(0)
    assert (source.drain(9), source.drain_tokens(9), source.tokens_behind, source.session) == ([], [], 0, "")
    for act in (lambda: source.command("sync", {}, -1), source.take_lease, source.release_lease):
        with pytest.raises(SourceError, match="not connected yet"):
            act()
    source.close()


def test_opened_it_is_the_live_run(hub: Hub) -> None:
    source = DeferredSource(LocalRun(hub.run), operate=True)
    answers: list[str] = []
    early = threading.Thread(target=lambda: answers.append(source.tokens(True)))
    early.start()
    source.open()
    try:
        early.join(30)
        assert answers == [""], "who asks for tokens too early waits for them"
        for _ in range(300):
            if source.link().heard:
                break
            source.wait(0.1)
        assert source.link().state == "live"
        assert source.session
    finally:
        source.close()


def test_a_key_that_cannot_be_read_is_one_sentence(hub: Hub) -> None:
    (hub.run.keys / "viewer.key").write_text("no key")
    source = DeferredSource(LocalRun(hub.run), operate=False)
    with pytest.raises(CommandError, match="not a key file of this project") as failed:
        source.open()
    assert failed.value.exit_code == 3
    assert source.tokens(True), "no caller waits for what will not come"
    source.close()


def test_closed_before_it_was_opened_it_stays_closed(hub: Hub) -> None:
    before = threading.active_count()
    source = DeferredSource(LocalRun(hub.run), operate=False)
    source.close()
    source.open()
    assert threading.active_count() == before
    assert source.link().state == "connecting"
