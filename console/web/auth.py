"""Access control of the web server: a secret in the address, then a cookie; no other origin, no other host name.

A loopback port is open to every user of a machine and to every page in a browser on it (a WebSocket does not obey the
same-origin policy), and a hostile name server can resolve its own name to this machine. Hence: a token as Jupyter has
it, checks of `Host` and `Origin`, and a policy that lets the page talk to this server only. Pure but for the token.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import urlsplit

Answer = Literal["enter", "give cookie", "no token", "other host", "other origin"]

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
        "img-src 'self' data:; font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Headers of every answer."""


def loopback(host: str) -> bool:
    """True for an address, or the name, of this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class RequestGuard:
    """Decides about requests; `public` allows any host name, but still needs the token."""

    def __init__(self, port: int, *, public: bool, token: str | None = None) -> None:
        self.token = token or secrets.token_urlsafe(24)
        # Cookies know no ports: two servers of one machine would overwrite each other's.
        self.cookie = f"driftline-{port}"
        self._public = public

    def check(self, path: str, host: str, origin: str | None, token: str | None, cookies: Mapping[str, str]) -> Answer:
        """The answer to a request: `host` and `origin` are its headers, `token` that of its address."""
        # Any port of this machine: ssh -L may have put another one in front.
        if not self._public and not loopback(urlsplit(f"//{host}").hostname or ""):
            return "other host"
        if path == "/ws" and (origin is None or urlsplit(origin).netloc != host):
            return "other origin"
        if path == "/" and token is not None and self._matches(token):
            return "give cookie"
        return "enter" if self._matches(cookies.get(self.cookie, "")) else "no token"

    def _matches(self, token: str) -> bool:
        return hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())
