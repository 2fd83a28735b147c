"""`driftline serve`: the console in a browser, read-only, on this machine's loopback interface."""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
import sys

from console.connect.resolve import live_run
from console.connect.target import Target
from console.errors import FAILED, USAGE, CommandError


def serve(args: argparse.Namespace) -> int:
    """Print the address to open and serve it until ctrl-C; every open page is a console of its own, all are read-only.

    The pages use the operator's configuration: theme, markers, keys, smoothing; --rules is for the sentinels.

    From elsewhere: `ssh -L PORT:127.0.0.1:PORT HOST`, and the same address. Exit code 130 after ctrl-C, 1 when the
    port is taken or textual-serve is missing.
    """
    try:
        from console.web.server import ConsoleServer
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual_serve", "aiohttp", "aiohttp_jinja2", "jinja2"):
            raise
        raise CommandError(
            "serve needs textual-serve, which is not installed: pip install 'driftline[serve]'"
        ) from error
    from console.cli.verbs.sentinels import read_rules
    from console.web.auth import RequestGuard
    from console.web.child import Page

    read_rules(args.rules)  # errors in the rules are reported here, not on the pages
    host, public = address(args.host, public=args.public)
    run = live_run(args.run, key=args.key)
    try:
        if run.directory is None:
            raise CommandError(
                "serve works where the run is: start it there, then ssh -L PORT:127.0.0.1:PORT HOST", USAGE
            )
        with bind(host, args.port) as bound:
            port = bound.getsockname()[1]
            key = args.key or os.environ.get("DRIFTLINE_KEY") or ""
            page = Page(str(run.directory.path), args.settings, key, args.rules or "")
            command = [sys.executable, "-P", "-m", "console.web.child", page.argument()]
            server = ConsoleServer(command, f"driftline {run.id}", bound, RequestGuard(port, public=public))
            return server.run(lambda: _print_address(run, server.address, port, public=public))
    finally:
        run.close()


def _print_address(run: Target, address: str, port: int, *, public: bool) -> None:
    if public:
        print(
            "driftline: WARNING: anyone who can reach this address and has the token in it can watch the run, and the "
            "pages cross the network unencrypted; ssh -L is safer",
            file=sys.stderr,
        )
    print(
        f"run {run.id}, read-only\n"
        f"open:            {address}\n"
        f"from elsewhere:  ssh -L {port}:127.0.0.1:{port} HOST, and the same address there\n"
        f"ctrl-C ends it",
        flush=True,
    )


def address(host: str, *, public: bool) -> tuple[str, bool]:
    """The address to listen on, and whether others can reach it. Raises CommandError for one that is not allowed."""
    if host == "localhost":
        return "127.0.0.1", False
    try:
        found = ipaddress.ip_address(host.strip("[]"))
    except ValueError as error:
        raise CommandError(f"--host {host}: is not an IP address; allowed: 127.0.0.1, ::1, localhost", USAGE) from error
    if found.is_unspecified:
        raise CommandError(f"--host {host}: not on all interfaces; name the address of one, with --public", USAGE)
    if found.is_loopback:
        return str(found), False
    if not public:
        raise CommandError(
            f"--host {host}: others can reach this address; allowed without --public: 127.0.0.1, ::1", USAGE
        )
    return str(found), True


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises CommandError."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(512)
    except OSError as error:
        bound.close()
        reason = (error.strerror or str(error)).lower()
        raise CommandError(f"cannot listen on {host} port {port}: {reason}", FAILED) from error
    return bound
