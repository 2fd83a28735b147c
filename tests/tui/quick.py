"""Keys and frames without Textual's wait for an idle processor, which costs more than all that is done in between.

What is waited for instead: every message that was there is handled, by every widget, and the screen is drawn once.
Good for many keys on few apps; what a worker thread brings later may be missed, and must not be asked for here.
"""

from __future__ import annotations

import unicodedata

from textual import events
from textual.keys import REPLACED_KEYS, _get_unicode_name_from_key
from textual.pilot import Pilot

from console.tui.app import ConsoleApp
from tests.tui.synthetic import FakeSource


def app_of(pilot: Pilot[None]) -> ConsoleApp:
    assert isinstance(pilot.app, ConsoleApp)
    return pilot.app


async def drawn(pilot: Pilot[None]) -> None:
    """Wait until everything that is known is on the screen."""
    await pilot.pause(0)
    app_of(pilot).refresh_view()
    await pilot.pause(0)


async def up_to_date(pilot: Pilot[None]) -> None:
    """Wait until everything that the sources were fed is on the screen."""
    app = app_of(pilot)
    for watch in app.watches:
        source = watch.source
        if not isinstance(source, FakeSource):
            continue
        for _ in range(20_000):
            asked = watch.tokens_asked and source.tokens_on
            waiting = asked and (source._token_queue or watch.tokens.head < source.tokens_given)
            if watch.model.head == source.head and app.live.ready and not waiting:
                break
            await pilot.pause(0.001)
        assert watch.model.head == source.head
    await drawn(pilot)


async def tap(pilot: Pilot[None], key: str) -> None:
    """Press a key and wait until it is handled and drawn."""
    try:
        character: str | None = unicodedata.lookup(_get_unicode_name_from_key(REPLACED_KEYS.get(key, key)))
    except KeyError:
        character = key if len(key) == 1 else None
    driver = pilot.app._driver
    assert driver is not None
    event = events.Key(key, character)
    event.set_sender(pilot.app)
    driver.send_message(event)
    await drawn(pilot)
