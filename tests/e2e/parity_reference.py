"""The reference of the parity test: a run that was recorded once, and what makes sure that it is still that run.

`python -m tests.e2e.parity_reference` records it anew (two minutes; a real vLLM, a real trainer), which is needed when
`configs/reference.toml` changes. `driftline parity` takes none of this: it trains its own references.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from msgspec.structs import replace

from console.parity.experiment import Planned, plan, to_toml
from driftline.config import Config, load
from driftline.frames import FixState, Metrics, RunState
from driftline.journal.journal import Journal, Record, read, record_encoder
from driftline.rundir import RunDir
from tests.e2e.live_run import REPOSITORY, LiveRun

STEPS, SWITCH = 60, 20
RECORDING = Path(__file__).parent / "data" / "parity-reference"
DIGEST = RECORDING / "sha256"
KEPT = (Metrics, FixState, RunState)
"""What the verdict reads. Tokens, spans and states of engines are most of a journal."""


def small() -> Config:
    """The configuration of `configs/reference.toml` with half its batch."""
    config = load(REPOSITORY / "configs" / "reference.toml")
    return replace(config, rollout=replace(config.rollout, prompts=8, samples=8, ahead=4))


def planned() -> tuple[Planned, Planned]:
    """The reference and the repaired run of the small figure."""
    reference, _, repaired = plan(small(), steps=STEPS, switch_at=SWITCH, seeds=1)
    return reference, repaired


def digest(run: RunDir) -> str:
    """SHA-256 over configuration and journal, in hexadecimal."""
    found = hashlib.sha256(run.config.read_bytes())
    for path in sorted(run.journal.glob("*.rlj")):
        found.update(path.read_bytes())
    return found.hexdigest()


def recorded(folder: Path) -> RunDir:
    """A copy of the recording in a folder of the test's own. Fails if it is not of today's configuration."""
    again = "record it anew: python -m tests.e2e.parity_reference"
    run = RunDir(folder / RECORDING.name)
    shutil.copytree(RECORDING, run.path, ignore=shutil.ignore_patterns(DIGEST.name))
    assert digest(run) == DIGEST.read_text(encoding="ascii").strip(), f"the recorded reference was changed; {again}"
    # By what it means, not by its text: a new key with a default changes nothing of what was recorded.
    assert load(run.config) == planned()[0].config, f"the recorded reference is of another config; {again}"
    return run


def record() -> None:
    """Run the reference and keep what the verdict reads of it."""
    wanted = to_toml(planned()[0].config)
    with tempfile.TemporaryDirectory() as folder:
        live = LiveRun(Path(folder), wanted)
        try:
            trainer = live.train()
            live.wait(lambda: max(live.steps(), default=0) >= STEPS, trainer)
            if trainer.wait(120):
                sys.exit(f"the trainer ended with {trainer.returncode}: {live.logs()}")
        finally:
            live.close()
        shutil.rmtree(RECORDING, ignore_errors=True)
        run = RunDir(RECORDING)
        run.journal.mkdir(parents=True)
        run.config.write_text(wanted, encoding="utf-8")
        journal = Journal(run.journal)
        for stamped in read(live.run.journal):
            if isinstance(stamped.frame(), KEPT):
                seq = journal.head + 1
                record = Record(seq, stamped.time, stamped.producer, stamped.body, 1, seq)
                journal.append(record_encoder.encode(record), seq, plain=True)
        journal.close()
        for sidecar in (*run.journal.glob("*.rli"), *run.journal.glob("*.rlc")):
            sidecar.unlink()  # made from the journal again when it is opened
        DIGEST.write_text(digest(run) + "\n", encoding="ascii")


if __name__ == "__main__":
    record()
