"""The newest token pairs of a live run and the states around them, as a diagnosis reads them."""

from __future__ import annotations

from collections.abc import Callable

from console.diagnosis.watch import Watch
from console.store.model import RunModel
from console.store.tokens.frames import decode_lean, is_tokens
from driftline.client import Client
from driftline.frames import FrameError


def newest_tokens(
    client: Client, first: Callable[[int], int], on_damaged: Callable[[FrameError], None]
) -> tuple[Watch, RunModel]:
    """Tokens and states of a run from frame number `first(head)` on, up to its head when this was called.

    `on_damaged` is called for each Tokens frame that cannot be decoded, which is left out. Raises ClientError.
    """
    watch, model = Watch(), RunModel()
    snapshot = client.snapshot()
    start = first(snapshot.head)
    for stamped in sorted(snapshot.states, key=lambda one: one.seq):
        if stamped.seq < start:
            model.apply(stamped)
    while start <= snapshot.head:
        page = client.page(start, tokens=True)
        for stamped in page.frames:
            if not is_tokens(stamped.body):
                model.apply(stamped)
                continue
            try:
                watch.feed(decode_lean(stamped.body))
            except FrameError as error:
                on_damaged(error)
        if page.next <= start:
            break
        start = page.next
    return watch, model
