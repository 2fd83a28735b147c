"""Making an environment: the commands one after the other, the check, the record last."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from console.environments import command, libstdcxx, machine, obstacles, place, plan
from console.environments.known import Known
from console.environments.pip_lines import PipLines
from console.environments.place import Record
from console.errors import CommandError
from console.process.signals import Signals

ROOT: Final = Path(__file__).resolve().parents[2]
CONSTRAINTS: Final = ROOT / "constraints"
CHECK: Final = ROOT / "scripts" / "one_token.py"
ANSWER: Final = "driftline: "
CHECK_LIMIT_S: Final = 600.0
SAY_EVERY_S: Final = 10.0
COMPILED: Final = "vllm/_C.abi3.so"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wish:
    """What was asked for: the environment, where, by which Python (None: found), from which index of CPU builds."""

    known: Known
    folder: Path
    python: str | None
    torch_index: str
    repair: bool
    build: plan.Build

    @property
    def log(self) -> Path:
        """Where the output of the command that runs goes; deleted when all went well."""
        return self.folder.parent / f".{self.known.name}.log"


def constraints(known: Known) -> Path:
    """The file with its pins. Raises CommandError where this installation has none."""
    path = CONSTRAINTS / f"{known.name}.txt"
    if not path.is_file():
        raise CommandError(f"{path} is not there: environments are made from a checkout of Driftline's repository")
    return path


def pins_digest(known: Known) -> str:
    """SHA-256 of its pins; a comment beside them changes nothing."""
    return hashlib.sha256("\n".join(plan.pins(constraints(known).read_text())).encode()).hexdigest()


def make(wish: Wish, say: Say, signals: Signals) -> Record:
    """Make the environment and check it. Raises CommandError with a sentence; what is left then counts as half made."""
    known, began = wish.known, time.monotonic()
    try:
        here = machine.look(wish.folder, wish.python, known.preload)
    except OSError as error:
        raise CommandError(str(error)) from error
    small = bool(wish.torch_index)
    if why := obstacles.obstacle(known, here, wish.folder.parent, wish.build, repair=wish.repair, small=small):
        raise CommandError(why)
    if not place.installed(wish.folder, pins_digest(known)):
        _install(wish, here, say, signals)
    variables = {} if wish.build == "cuda" else plan.variables(known, _preloaded(known, wish.folder, here.libraries))
    arguments = dict(known.arguments) if wish.build == "cpu" else {}
    found = check(wish, variables, arguments, say, signals)
    made = Record(
        name=known.name, vllm=str(found["vllm"]), torch=str(found["torch"]), python=str(found["python"]),
        build=wish.build, pins=pins_digest(known), made=time.time(), seconds=round(time.monotonic() - began, 1),
        bytes=place.size(wish.folder), variables=variables, arguments=arguments,
    )  # fmt: skip
    place.write_record(wish.folder, made)
    wish.log.unlink(missing_ok=True)
    return made


def _install(wish: Wish, here: machine.Machine, say: Say, signals: Signals) -> None:
    wanted = plan.pins(constraints(wish.known).read_text())
    if wish.build == "cuda":
        steps = plan.cuda_steps(wish.known, wish.folder, here.python, wanted)
    else:
        steps = plan.cpu_steps(wish.known, wish.folder, here.python, wanted, wish.torch_index)
    wish.folder.parent.mkdir(parents=True, exist_ok=True)
    # pip unpacks where temporary files lie, and /tmp may be small.
    with tempfile.TemporaryDirectory(prefix=f".{wish.known.name}-", dir=wish.folder.parent) as temporary:
        for step in steps:
            _run(wish, step, temporary, len(wanted), say, signals)
    if wish.build == "cpu" and obstacles.lacks_libstdcxx(wish.known, here):
        _repair(wish.folder, say)
    place.write_installed(wish.folder, pins_digest(wish.known))


def check(
    wish: Wish, variables: Mapping[str, str], arguments: Mapping[str, Any], say: Say, signals: Signals
) -> dict[str, Any]:
    """Import vLLM there and sample one token. Raises CommandError with what came in between."""
    began, answers = time.monotonic(), list[str]()
    said = [began]

    def each(line: str) -> None:
        if line.startswith(ANSWER):
            answers.append(line.removeprefix(ANSWER))
        now = time.monotonic()
        if now - said[0] >= SAY_EVERY_S:
            said[0] = now
            say(f"checking: import vLLM, load a tiny model, sample one token, {now - began:.0f} s")

    words = (str(plan.interpreter(wish.folder)), "-P", str(CHECK), json.dumps(dict(arguments)))
    code = command.run(words, _environ(variables), wish.log, each, signals, CHECK_LIMIT_S)
    if code is None:
        raise CommandError(f"{wish.known.name}: no token within {CHECK_LIMIT_S:.0f} s; its log: {wish.log}")
    if code or not answers:
        raise CommandError(f"{wish.known.name} is installed but does not work: {_cause(wish.log)}; its log: {wish.log}")
    found: dict[str, Any] = json.loads(answers[-1])
    say(
        f"checked: vLLM {found['vllm']} on torch {found['torch']} imported in {found['import_s']:.0f} s, engine up in "
        f"{found['build_s']:.0f} s, one token sampled ({time.monotonic() - began:.0f} s in all)"
    )
    return found


def _environ(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what would lead another Python to this one's packages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DRIFTLINE_"))}
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "NO_COLOR": "1"}
    return {**kept, **quiet, "TORCH_COMPILE_DISABLE": "1", **variables}


def _cause(log: Path) -> str:
    """What a log says of a library of the system, else its last exception, else its last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    if system := [line for line in lines if "GLIBC" in line and "not found" in line]:
        return system[0][-300:]  # vLLM only warns of it, and falls over something else later
    named = [line for line in lines if "Error: " in line and "root cause above" not in line]
    return (named or lines or ["it said nothing"])[-1][:300]


def _preloaded(known: Known, folder: Path, libraries: Mapping[str, Path]) -> list[Path]:
    """The files that LD_PRELOAD has to name."""
    found = []
    for name in known.preload:
        own = folder / "lib" / f"{name}.so"
        path = own if own.exists() else libraries.get(name)
        if path is None:
            raise CommandError(f"{own} is not there, and vLLM {known.version} wants it in LD_PRELOAD")
        found.append(path)
    return found


def _repair(folder: Path, say: Say) -> None:
    (library,) = folder.glob(f"lib/python*/site-packages/{COMPILED}")
    try:
        library.write_bytes(libstdcxx.repaired(library.read_bytes()))
    except libstdcxx.NotThisFileError as error:
        raise CommandError(f"{library} {error}; it was left as it is") from error
    say(f"repaired: {COMPILED} no longer asks for GLIBCXX_3.4.32")


def _run(wish: Wish, step: plan.Step, temporary: str, packages: int, say: Say, signals: Signals) -> None:
    """Run one step, saying now and then how far it is. Raises CommandError when it fails."""
    began = time.monotonic()
    said, lines = [began], PipLines(packages)

    def each(line: str) -> None:
        lines.read(line)
        now = time.monotonic()
        if now - said[0] >= SAY_EVERY_S:
            said[0] = now
            far = f"{lines.progress}, " if lines.progress else ""
            say(f"{step.title}: {far}{now - began:.0f} s")

    say(f"{step.title} ...")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    if command.run(step.command, {**kept, "TMPDIR": temporary}, wish.log, each, signals):
        raise CommandError(f"{step.title} failed: {lines.failure}; its log: {wish.log}")
    say(f"{step.title}: done in {time.monotonic() - began:.0f} s")
