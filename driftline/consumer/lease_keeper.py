"""Renewal of the operator lease while a client lives: an attached console needs it, a script does not."""

from __future__ import annotations

import logging
import threading

from driftline.consumer.rpc import RENEW_SECONDS, Client, ClientError

log = logging.getLogger("driftline.client")


class LeaseKeeper:
    """Renews the lease that its client holds, every RENEW_SECONDS, on a thread of its own; it never takes the lease."""

    def __init__(self, client: Client, every: float = RENEW_SECONDS) -> None:
        self._client, self._every = client, every
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; call it before the client's own `close`. A renewal under way may last as long as a silent hub."""
        self._ending.set()

    def _keep(self) -> None:
        while not self._ending.wait(self._every):
            if not self._client.holds_lease:
                continue
            try:
                self._client.renew_lease()
            except ClientError as error:  # the hub may be starting again; a lease outlives some silence
                log.info("%s", error)
