"""`python -m trainer --run-dir DIR [--steps N] [--resume]`: train as DIR/config.toml says, until done or stopped.

Exit code 0 for a run that reached its end or was stopped, 1 for one that failed, 2 for a configuration or an
argument that cannot be run. An error is one sentence on stderr and the detail of the run's state.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from pathlib import Path

from driftline import config, toml_file
from driftline.rundir import RunDir, RunError

FAILED, USAGE = 1, 2

# Nothing is ever fetched, no progress bars in a log, no forked workers of a tokenizer next to Ray's processes.
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the trainer; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description="Train as RUN_DIR/config.toml says.")
    parser.add_argument("--run-dir", type=Path, required=True, help="the run directory")
    parser.add_argument("--steps", type=int, help="steps in all, in place of run.steps")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the run")
    given = parser.parse_args(arguments)
    if given.steps is not None and given.steps < 1:
        parser.error(f"--steps: {given.steps} is not a number of steps; allowed: 1 and more")
    run = RunDir(given.run_dir.resolve())
    try:
        text = toml_file.read(run.config, config.ConfigError)
        settings, digest = config.parse(text, str(run.config)), config.digest(text)
    except config.ConfigError as error:
        print(f"trainer: {error}", file=sys.stderr)
        return USAGE
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    gc.disable()  # torch and transformers make next to no garbage while they are imported, and stay until the end
    try:
        from trainer.session import Session, Signals
    except ImportError as error:
        print(f"trainer: {error}; install driftline[cpu] or driftline[cuda]", file=sys.stderr)
        return FAILED
    finally:
        gc.freeze()
        gc.enable()
    try:
        signals = Signals()
        session = Session(settings, run, steps=given.steps or settings.run.steps, digest=digest)
    except RunError as error:
        print(f"trainer: {error}", file=sys.stderr)
        return FAILED
    failure = session.run(resume=given.resume, signals=signals, on_progress=lambda text: print(text, flush=True))
    if failure:
        print(f"trainer: {failure}", file=sys.stderr, flush=True)
        if session.abandoned:
            os._exit(FAILED)  # everything is written; Ray's own end would wait for its dead processes
        return FAILED
    print(session.summary, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
