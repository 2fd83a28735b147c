"""`driftline keys`: the roles of keys in a run. Prints public halves only; a secret stays in its 0600 file."""

from __future__ import annotations

import argparse
import json

from console.connect.resolve import local_run_dir
from console.errors import OK, USAGE, CommandError
from driftline.keys import Grant, Kind, Role, add, key_files, parse_kinds, read_authorized, revoke
from driftline.rundir import RunError


def new_key(args: argparse.Namespace) -> int:
    """Make a key pair and grant it a role; prints where it is and what it may do. Works on a live run at once."""
    role, kinds = _role(args)
    run = local_run_dir(args.run, "keys")
    name = args.produces if role == "producer" and args.produces else args.name
    try:
        path = add(run, args.name, role, name, tokens=not args.no_tokens, kinds=kinds)
    except RunError as error:
        raise CommandError(str(error)) from error  # exit code 1, not 3: the run exists
    grant = Grant(role, name, "", not args.no_tokens, kinds)
    print(f"{path}  {_right(grant)} {name}{'' if not args.no_tokens else ', no raw tokens'}")
    print("the user of this key needs this file and the run's connection.json; copy both over a channel that you trust")
    return OK


def list_keys(args: argparse.Namespace) -> int:
    """Every granted key. With --json one array of {"key", "role", "kinds", "name", "tokens", "public"}."""
    run = local_run_dir(args.run, "keys")
    files = key_files(run)
    grants = list(read_authorized(run.keys / "authorized").values())
    if args.json:
        print(json.dumps([_document(grant, files) for grant in grants]))
        return OK
    rows = [(files.get(grant.public, "-"), _right(grant), _name(grant), grant.public) for grant in grants]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    return OK


def revoke_key(args: argparse.Namespace) -> int:
    """Take a key's rights away; a live hub disconnects its sessions within about a second."""
    run = local_run_dir(args.run, "keys")
    try:
        grant = revoke(run, args.key)
    except RunError as error:
        raise CommandError(str(error)) from error
    print(f"revoked: {grant.role} {grant.name}  {grant.public}")
    return OK


def _role(args: argparse.Namespace) -> tuple[Role, tuple[Kind, ...]]:
    """Role and kinds that were asked for. Raises CommandError."""
    role: Role = args.role or ("producer" if args.producer else "viewer")
    if args.producer and role != "producer":
        raise CommandError(f"--producer {args.producer}: a key of role {role} sends nothing", USAGE)
    try:
        return role, parse_kinds(args.producer) if args.producer else ()
    except ValueError as error:
        raise CommandError(f"--producer: {error}", USAGE) from error


def _right(grant: Grant) -> str:
    """The role, for a producer with what it may send: `producer:engine`."""
    return f"{grant.role}:{','.join(grant.sends)}" if grant.sends else grant.role


def _document(grant: Grant, files: dict[str, str]) -> dict[str, object]:
    return {
        "key": files.get(grant.public),
        "role": grant.role,
        "kinds": list(grant.sends),
        "name": grant.name,
        "tokens": grant.tokens,
        "public": grant.public,
    }


def _name(grant: Grant) -> str:
    return grant.name if grant.tokens else f"{grant.name} (no raw tokens)"
