"""A stand-in for the trainer's process, for tests of how a supervisor starts, watches and ends processes.

It trains nothing and stands for no engine: it speaks the trainer's part of the wire and leaves processes lying
about the way Ray does. STANDIN picks its manners, STANDIN_PIDS names a file for the ids of what it starts.

    steps      a few steps, then the end
    forever    steps until SIGTERM
    orphans    forever, with a grandchild in a session of its own whose parent is dead and that ignores SIGTERM
    stubborn   forever, and SIGTERM and stop are ignored
    lingering  forever, and after SIGTERM it steps on until it has met another hub
    slow       never gets past "starting"
    gated      does not get past "starting" before there is a file of the name STANDIN_PIDS + ".go"
    phases     does not get past "starting" before there is a file STANDIN_PIDS + ".go", and after SIGTERM or a stop is
               "stopping" until there is one STANDIN_PIDS + ".end"
    die        an error after two steps
    killed     SIGKILL to itself after two steps, with orphans left behind
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from driftline.frames import RunState
from driftline.producer.probe import Probe
from driftline.rundir import RunDir

ORPHAN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
# Starts the orphan in a session of its own and ends at once, as a daemon does.
PARENT = """
import subprocess, sys
own = {"start_new_session": True, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], **own)
child.stdout.readline()
print(child.pid, flush=True)
"""


def main() -> int:
    run = RunDir(Path(sys.argv[sys.argv.index("--run-dir") + 1]))
    manners = os.environ["STANDIN"]
    note(os.getpid())
    stopping: list[int] = []
    if manners == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))
    if manners in ("orphans", "killed"):
        made = subprocess.run([sys.executable, "-c", PARENT, ORPHAN], capture_output=True, text=True, check=True)
        note(int(made.stdout))
    probe = Probe("trainer", run)
    probe.send(RunState(run.id, "starting", 0, 5, 0, time.time(), detail="starting nothing"))
    while manners == "slow" and not stopping:
        time.sleep(0.01)
    while manners in ("gated", "phases") and not stopping and not os.path.exists(os.environ["STANDIN_PIDS"] + ".go"):
        time.sleep(0.01)
    step = 0
    while not stopping and not (manners == "steps" and step == 5):
        step += 1
        probe.send(RunState(run.id, "running", step, 5, step, time.time()))
        probe.emit({"reward/mean": step / 10}, step=step, version=step)
        probe.flush()
        while not probe.commands.empty():
            command = probe.commands.get()
            probe.event("mark", command.args.get("text", command.verb))
            probe.ack(command.id, "applied")
            if command.verb == "stop" and manners != "stubborn":
                stopping.append(0)
        if step == 2 and manners == "die":
            raise ValueError("the stand-in has had enough")
        if step == 2 and manners == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)
    if manners == "phases":
        probe.send(RunState(run.id, "stopping", step, 5, step, time.time()))
        while not os.path.exists(os.environ["STANDIN_PIDS"] + ".end"):
            time.sleep(0.01)
    if manners == "lingering":
        first = run.connection().pid
        while run.connection().pid == first:
            time.sleep(0.01)
    probe.send(RunState(run.id, "finished", step, 5, step, time.time()))
    probe.close(45.0)
    return 0


def note(pid: int) -> None:
    with open(os.environ["STANDIN_PIDS"], "a") as file:
        print(pid, file=file, flush=True)


if __name__ == "__main__":
    sys.exit(main())
