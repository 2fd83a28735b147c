"""The sentence about a command that got no final answer names the time that was asked for, however it was used up."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from console.connect.commands import send_command
from console.errors import TIMEOUT, CommandError
from driftline.client import Client, ClientError
from driftline.frames import Ack


class SlowHub:
    """The two calls of a client that sending uses: most of the time goes by before the command is accepted."""

    def __init__(self, before_s: float) -> None:
        self.before_s = before_s
        self.waited_s = 0.0

    def command(self, *_: Any, **__: Any) -> str:
        time.sleep(self.before_s)
        return "c1"

    def wait(self, _: str, timeout: float, on_ack: Callable[[Ack], None]) -> Ack:
        self.waited_s = timeout
        time.sleep(timeout)
        raise ClientError("no answer")


@pytest.mark.parametrize(("before_s", "timeout"), [(0.0, 0.2), (0.3, 0.4), (0.6, 0.4)])
def test_the_time_that_was_asked_for_is_named(before_s: float, timeout: float) -> None:
    hub = SlowHub(before_s)
    args = argparse.Namespace(timeout=timeout, take_over=False, wait=True)
    with pytest.raises(CommandError) as caught:
        send_command(cast(Client, hub), args, "resume", {}, "resume")
    assert caught.value.exit_code == TIMEOUT
    assert f"no final answer within {timeout:g} s; no process of the run has acknowledged it" in str(caught.value)
    assert hub.waited_s <= max(0.1, timeout - before_s)
