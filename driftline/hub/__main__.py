"""Command line of the hub: `python -m driftline.hub RUN_DIR [options]`, see --help.

Exit codes: 0 ended as asked, 1 could not run, 2 wrong arguments, 3 the run already has a hub.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import resource
import signal
import sys
from pathlib import Path

from driftline.hub import run_lock
from driftline.journal.disk import DISK, Disk
from driftline.rundir import RunDir, RunError, make_private


def main(arguments: list[str] | None = None, disk: Disk = DISK) -> int:
    """Run one hub; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m driftline.hub", description="Hub of one run.")
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("--bind", default="127.0.0.1", metavar="ADDRESS", help="interface to listen on")
    parser.add_argument("--parent-pid", type=int, metavar="N", help="end once this process and all producers are gone")
    parser.add_argument("--keep-gb", type=float, default=0.0, metavar="N", help="journal: only the newest N GB stay")
    parser.add_argument("--keep-hours", type=float, default=0.0, metavar="N", help="journal: only N hours stay")
    parser.add_argument("--keep-until-compacted", action="store_true", help="nothing goes that is not in Parquet")
    parser.add_argument("--synthetic", action="store_true", help="label the run as synthetic")
    options = parser.parse_args(arguments)
    run = RunDir(options.run.resolve())
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    _more_descriptors()
    try:
        make_private(run.path)
        lock = run_lock.take(run)
    except run_lock.HeldError as error:
        return _fail(str(error), 3)
    except RunError as error:
        return _fail(str(error), 1)
    except OSError as error:
        return _fail(f"{run.path}: cannot be used as a run directory: {error.strerror}", 1)

    from driftline.hub.auth import AuthError
    from driftline.hub.retention import RetentionPolicy
    from driftline.hub.server import Server
    from driftline.journal.journal import JournalError
    from driftline.sockets import wildcard

    if wildcard(options.bind):
        return _fail(f"--bind {options.bind}: every interface is not allowed; name one, such as 127.0.0.1", 2)
    if not (options.keep_gb >= 0 and options.keep_hours >= 0):
        return _fail("--keep-gb and --keep-hours are 0 (keep everything) or more", 2)
    keep = RetentionPolicy(options.keep_gb, options.keep_hours, options.keep_until_compacted)
    if options.parent_pid:
        # Ctrl-C reaches the whole process group; a hub with a parent must outlive the trainer's last frames.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        server = Server(run, options.bind, options.synthetic, options.parent_pid, keep=keep, disk=disk, lock=lock)
    except (RunError, AuthError, JournalError, OSError) as error:
        return _fail(f"run {run.id}: {error}", 1)

    def stop(*_: object) -> None:
        server.stopping = True

    signal.signal(signal.SIGTERM, stop)
    if not options.parent_pid:
        signal.signal(signal.SIGINT, stop)
    try:
        server.run()
    finally:
        server.close()
    return 0


def _more_descriptors() -> None:
    """As many as the system lets this process have: a thousand connections that say nothing must not use them up."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _fail(sentence: str, code: int) -> int:
    print(f"driftline hub: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
