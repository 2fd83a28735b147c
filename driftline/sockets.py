"""ZeroMQ sockets with the options that every connection of this project has: CURVE, limits, heartbeats."""

from __future__ import annotations

import contextlib
import ipaddress
import struct
from socket import AI_NUMERICHOST, getaddrinfo
from typing import Final

import zmq

from driftline.keys import Keys

HEARTBEAT_MS: Final = 2000
HEARTBEAT_TIMEOUT_MS: Final = 6000
HANDSHAKE_MS: Final = 2000
_EVENT: Final = struct.Struct("=H")
"""The start of a monitor's message, as zmq_socket_monitor(3) has it. pyzmq's own reader of it imports asyncio, which is
half of what a probe would cost a process in imports."""

Socket = zmq.Socket[bytes]
Context = zmq.Context[zmq.Socket[bytes]]


def configure(socket: Socket, *, max_message: int, send_frames: int, receive_frames: int) -> None:
    """Set limits (bytes a message, messages a peer) and heartbeats; nothing lingers when the socket closes."""
    socket.linger = 0
    socket.maxmsgsize = max_message
    socket.sndhwm = send_frames
    socket.rcvhwm = receive_frames
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)


def secure_client(socket: Socket, server: str, keys: Keys) -> None:
    """Speak CURVE with the pair `keys`, only with the holder of the `server` key (Z85)."""
    socket.curve_serverkey = server.encode()
    socket.curve_publickey = keys.public.encode()
    socket.curve_secretkey = keys.secret.encode()
    # Soon, and not ever more rarely: a hub that is started again is back within a second.
    socket.reconnect_ivl = 50
    socket.reconnect_ivl_max = 200


def dial(socket: Socket, endpoint: str) -> None:
    """Connect, once every option is set; libzmq takes an IPv6 address only with that option."""
    if "[" in endpoint:
        socket.ipv6 = True
    socket.connect(endpoint)


class Monitor:
    """Watches one socket's connections for the one fact a peer cannot be asked for: that it refuses our key."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._events = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self.refused = False
        self.succeeded = False

    def update(self) -> None:
        """Read what has happened since the last call; never blocks."""
        while int(self._events.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            (event,) = _EVENT.unpack_from(self._events.recv_multipart(zmq.NOBLOCK)[0])
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self.refused = True
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.succeeded, self.refused = True, False

    def close(self) -> None:
        """Stop watching."""
        self._socket.disable_monitor()
        self._events.close(linger=0)


def wildcard(address: str) -> bool:
    """True for an address that would listen on every interface, however it is spelt: 0.0.0.0, 0, 0x0, ::, ..."""
    host = address.strip().strip("[]")
    if host in {"", "*"}:
        return True
    with contextlib.suppress(OSError, ValueError):  # a name, or nothing at all: binding to it says so
        for *_, (numeric, *_) in getaddrinfo(host, None, flags=AI_NUMERICHOST):
            ip = ipaddress.ip_address(str(numeric).partition("%")[0])
            mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
            return (mapped or ip).is_unspecified
    return False
