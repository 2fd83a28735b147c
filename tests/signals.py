"""Signals of a child process as a terminal's shell would leave them.

A process that a shell starts in the background (`make test &`), or `nohup`, inherits SIGINT or SIGHUP as ignored, and
what it starts inherits that too. The product keeps to it, as it should; a test whose subject is one of these signals
starts its child with the defaults.
"""

from __future__ import annotations

import signal

OFTEN_IGNORED = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


def restore_defaults() -> None:
    """Give them their default actions; for `preexec_fn`, and between fork and exec."""
    for number in OFTEN_IGNORED:
        signal.signal(number, signal.SIG_DFL)
