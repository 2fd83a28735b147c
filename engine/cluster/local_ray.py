"""A local Ray without those of its processes that no engine needs; what is left starts and serves actors as before.

`ray.init` has no option for it. Each of them is a Python process that imports Ray; together they are half of what a
start of Ray costs, `ray.init` waits for one of them, and they take memory for as long as the run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final


def _nothing(_node: Any, **_: Any) -> None:
    """Start nothing."""


def _no_page(node: Any, **_: Any) -> None:
    """Start nothing, and have no address of it."""
    node._webui_url = ""


UNUSED: Final[dict[str, Callable[..., None]]] = {
    # The autoscaler, which asks a cloud for more nodes.
    "start_monitor": _nothing,
    # Copies the logs of workers to the driver, which has asked for none (log_to_driver).
    "start_log_monitor": _nothing,
    # The dashboard's server, which without a dashboard (include_dashboard) reports usage: see ENVIRONMENT.
    "start_api_server": _no_page,
}
"""Methods of Ray's `Node`, and what takes their place while it starts."""


@contextmanager
def unused_left_out() -> Iterator[None]:
    """Within it `ray.init` starts a local Ray without them. A Ray that is built in another way starts them as ever."""
    try:
        from ray._private.node import Node
    except ImportError:
        yield
        return
    with ExitStack() as restored:
        for name, instead in UNUSED.items():
            if (own := vars(Node).get(name)) is not None:
                restored.callback(setattr, Node, name, own)
                setattr(Node, name, instead)
        yield
