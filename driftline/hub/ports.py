"""The ports of the hub: those of the hub before it where they are free, so that clients find it without a search."""

from __future__ import annotations

import random
import time
from typing import Final

import zmq

from driftline.rundir import RunError
from driftline.sockets import Socket

# Outside the range from which Linux takes ports for outgoing connections: a producer that reconnects while the hub
# is away could otherwise be given the hub's own port, connect to itself and keep the new hub from binding it.
_PORTS: Final = range(15000, 32000)
_REBIND_SECONDS: Final = 1.0


def bind(socket: Socket, address: str, old: str) -> str:
    """Bind, to the endpoint `old` if it is at this address and free; return the endpoint. Raises RunError."""
    host = f"[{address}]" if ":" in address else address
    if ":" in address:
        socket.ipv6 = True
    wanted = [old] if old.rpartition(":")[0] == f"tcp://{host}" else []
    wanted += [f"tcp://{host}:{port}" for port in random.sample(_PORTS, 50)]
    reason = ""
    for endpoint in wanted:
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            reason = error.strerror or str(error)
            if error.errno != zmq.EADDRINUSE:
                break
        else:
            return endpoint
    raise RunError(f"the hub cannot listen on {address}: {reason}")


def rebind(socket: Socket, address: str, old: str) -> str:
    """Bind right after closing the socket that held `old`, which lets go of it a moment later. Raises RunError."""
    deadline = time.monotonic() + _REBIND_SECONDS
    if ":" in address:
        socket.ipv6 = True
    while time.monotonic() < deadline:
        try:
            socket.bind(old)
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE:
                break
            time.sleep(0.001)
        else:
            return old
    return bind(socket, address, old)
