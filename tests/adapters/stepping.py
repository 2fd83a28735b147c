"""A framework's loop that a test steps: a line on its standard input is one step, the end of it the end."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

BATCH = {
    # Two responses of 4 and 2 tokens; the second token of the first is one of an environment.
    "ids": [[11, 12, 13, 14], [21, 22, 0, 0]],
    "mask": [[1, 0, 1, 1], [1, 1, 0, 0]],
    "rollout": [[-1.0, 0.0, -0.5, -2.0], [-0.25, -1.5, 0.0, 0.0]],
    "trainer": [[-1.1, -3.0, -0.4, -2.2], [-0.25, -1.5, 0.0, 0.0]],
}
"""Padded on the right. Of the 5 sampled tokens |trainer - rollout| is 0.1, 0.1, 0.2, 0, 0."""
PROMPT = [[1, 2, 3], [4, 5]]


def steps() -> Iterator[int]:
    """The number of each step that is asked for."""
    print("ready", flush=True)
    for step, _ in enumerate(sys.stdin, 1):
        yield step


def without(hook: str) -> None:
    """Delete a function of the framework's, as if its release had none: "module:Class.method", or "" for nothing."""
    if not hook:
        return
    module, _, path = hook.partition(":")
    *owners, name = path.split(".")
    owner: Any = reduce(getattr, owners, importlib.import_module(module))
    delattr(owner, name)


class Calls:
    """An object whose methods all do one thing: what stands for a group of Ray actors."""

    def __init__(self, act: Callable[..., Any] = lambda *_args, **_kwargs: []) -> None:
        self.act = act

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return self.act
