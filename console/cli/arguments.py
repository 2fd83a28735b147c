"""Arguments of every verb. A verb's module is named here and imported only when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from console import errors
from driftline import __version__

MARKERS = ("braille", "block", "ascii")
THEMES = ("auto", "dark", "light", "okabe-ito", "contrast", "dark-16", "light-16", "mono")
ROLES = ("viewer", "operator", "producer")
KINDS = ("trainer", "engine", "supervisor", "metrics")
TABLES = (
    "metrics", "tokens", "sequences", "syncs", "spans", "fixes", "effects", "events", "commands", "engines", "states",
)  # fmt: skip
WAIT = 60.0
ALIGN_STEPS = 10
PARITY = (100, 20, 3)
"""Steps of a run, step of the switch and reference runs of the parity experiment."""

T = TypeVar("T", int, float)


class Parser(argparse.ArgumentParser):
    """Errors as one sentence with a prefix, without the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(errors.USAGE, f"driftline: {message}; see: {self.prog} --help\n")


def build(argv: Sequence[str] = ()) -> Parser:
    """The parser of all verbs or, if the first argument is a verb, only of the group that is added with it.

    For a single verb, making the forty others would be the longest part of parsing its arguments.
    """
    parser = Parser(
        prog="driftline",
        description="A terminal console for online RL runs: see, switch and fix the drift between "
        "rollout engine and trainer.",
        epilog="RUN is an id, a path, ssh://[user@]host[:port]/path/to/run, or a connection file (with a key in "
        "$DRIFTLINE_KEY); default: $DRIFTLINE_RUN, else the newest live run in $DRIFTLINE_RUNS (./runs). "
        "Exit codes: 0 done, 1 failed or refused, 2 bad arguments or configuration, 3 no such or no live run, "
        "4 --wait timed out, 5 not at parity, 6 not enough data to say so, 7 an alarm (watch --exit-code), "
        "8 a cause was named, 9 no known cause explains it (diagnose), "
        "129 SIGHUP, 130 ctrl-C, 143 SIGTERM.",
    )
    parser.add_argument("--version", action="version", version=f"driftline {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    group = _GROUPS.get(argv[0]) if argv else None
    for add_group in [group] if group is not None else dict.fromkeys(_GROUPS.values()):
        add_group(verbs)
    return parser


def _add_starting_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    run = _add_verb(verbs, "run", "run:run", "start a run and watch it")
    run.add_argument("config", metavar="CONFIG", help="TOML file, for example configs/demo.toml")
    run.add_argument("--steps", type=_positive, metavar="N", help="trainer steps, instead of run.steps")
    run.add_argument("--name", help="first part of the run's id, instead of run.name")
    run.add_argument("--headless", action="store_true", help="print steps and events instead of opening the console")
    text = "let the run go on without this terminal, and without its supervisor; driftline stop ends it"
    run.add_argument("--detach", action="store_true", help=text)
    _add_screen_options(run)
    demo = _add_verb(verbs, "demo", "run:demo", "the demonstration: vLLM's defaults, then the fixes, live")
    demo.add_argument("--config", metavar="CONFIG", help="another file than configs/demo.toml")
    demo.add_argument("--headless", action="store_true", help="switch the fixes automatically, as without a terminal")
    _add_screen_options(demo)
    simulate = _add_verb(verbs, "simulate", "hub:simulate", "a synthetic feed, to learn the console on")
    simulate.add_argument("--steps", type=_natural, default=900, metavar="N", help="0: until ctrl-C (default 900)")
    simulate.add_argument("--rate", type=_above_zero, default=2.0, metavar="HZ", help="steps a second (default 2)")
    simulate.add_argument("--engines", type=_positive, default=2, metavar="N", help="synthetic engines (default 2)")
    simulate.add_argument(
        "--seed", type=_natural, default=0, metavar="N", help="seed of its random numbers (default 0)"
    )
    hub = _add_verb(verbs, "hub", "hub:hub", "a hub for your own trainer")
    hub.add_argument("--name", default="run", help="first part of the run's id (default run)")
    hub.add_argument("--bind", default="127.0.0.1", metavar="ADDRESS", help="interface to listen on (default loopback)")
    hub.add_argument("--run", metavar="RUN", help="an existing run directory, to go on with it")
    hub.add_argument("--keep-gb", type=_above_zero, default=0.0, metavar="N", help="only the journal's newest N GB")
    hub.add_argument("--keep-hours", type=_above_zero, default=0.0, metavar="N", help="only N hours of the journal")
    hub.add_argument("--compact", action="store_true", help="write the closed part of the journal as Parquet meanwhile")
    follow = _add_verb(verbs, "follow", "follow:follow", "another framework's run, live, by the files that it writes")
    follow.add_argument(
        "path", metavar="PATH", help="a log or a folder as `driftline import` reads it, also one that is not there yet"
    )
    follow.add_argument("--as", dest="name", default="followed", metavar="NAME", help="first part of the run's id")
    follow.add_argument(
        "--step", metavar="NAME", help="the logged name to take as the step (default: found in the log)"
    )
    follow.add_argument("--only", metavar="NAME", help="of several runs in a folder, this one")
    follow.add_argument("--once", action="store_true", help="end once all that is there now was sent")
    bridge = _add_verb(verbs, "bridge", "bridge:bridge", "a vLLM server without the plugin, as an engine of a run")
    text = "http://HOST:PORT of the server (default http://127.0.0.1:8000)"
    bridge.add_argument("url", nargs="?", metavar="URL", help=text)
    bridge.add_argument("--run", metavar="RUN", help="id, path or connection file (default: the newest live run)")
    bridge.add_argument("--key", metavar="FILE", help="a producer's key (default: the run's own for engines)")
    bridge.add_argument("--name", metavar="NAME", help="the engine's name in the run (default engine-PORT)")


def _add_attach(verbs: argparse._SubParsersAction[Parser]) -> None:
    attach = _add_verb(verbs, "attach", "attach:attach", "open the console on a live run")
    attach.add_argument("runs", nargs="*", metavar="RUN", help="also ssh://[user@]host[:port]/path/to/run; several too")
    attach.add_argument("--connection", metavar="FILE", help="a connection file from elsewhere (needs --key)")
    _add_key(attach)
    attach.add_argument("--operate", action="store_true", help="allow acting on the run (needs the operator's key)")
    text = "compare the run with this one (id, path or FILE.parquet); again for more seeds of it"
    attach.add_argument("--reference", action="append", default=[], metavar="RUN", help=text)
    _add_screen_options(attach)
    _add_theme(attach)
    _add_alarm_options(attach)


def _add_recorded_run_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    replay = _add_verb(verbs, "replay", "replay:replay", "a recorded run on the same screens, from any step")
    replay.add_argument("run", nargs="?", metavar="RUN", help="id or path of a run directory, or of a copy of one")
    replay.add_argument("--from", dest="start", type=_natural, metavar="STEP", help="play from this step on")
    replay.add_argument("--speed", type=_above_zero, metavar="X", help="times as fast as it was (default 1)")
    replay.add_argument("--rules", metavar="FILE", help="TOML over the packaged rules of the sentinels")
    _add_screen_options(replay)
    _add_theme(replay)
    evidence = _add_verb(
        verbs, "evidence", "evidence:evidence", "tables, pictures and a summary of a run in one folder"
    )
    evidence.add_argument("run", nargs="?", metavar="RUN", help="id or path of a run directory, or of a copy of one")
    evidence.add_argument("--out", metavar="FOLDER", help="a new folder (default: in the run's snapshots)")


def _add_status_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    listing = _add_verb(verbs, "list", "list:print_runs", "the runs here, newest first")
    _add_json(listing)
    status = _add_verb(verbs, "status", "status:status", "one line about a run, fit for a status bar")
    _add_run(status)
    _add_key(status)
    text = "a line for each engine too, and what differs between their configurations"
    status.add_argument("--engines", action="store_true", help=text)
    _add_json(status)
    tail = _add_verb(verbs, "tail", "tail:tail", "one line for each step and event, as they come")
    _add_run(tail)
    _add_key(tail)
    tail.add_argument("--seconds", type=_above_zero, metavar="N", help="end after N seconds")


def _add_serve(verbs: argparse._SubParsersAction[Parser]) -> None:
    serve = _add_verb(verbs, "serve", "serve:serve", "the console in a browser, read-only, on loopback")
    serve.add_argument("run", nargs="?", metavar="RUN", help="id or path of a run here (default: the newest live one)")
    _add_key(serve)
    serve.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (default %(default)s)")
    serve.add_argument("--port", type=_natural, default=0, metavar="N", help="0: a free one (default)")
    serve.add_argument("--public", action="store_true", help="allow an address that other machines can reach")
    serve.add_argument("--rules", metavar="FILE", help="TOML over the packaged rules of the sentinels")
    _add_screen_options(serve)
    _add_theme(serve)


def _add_sentinel_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    watch = _add_verb(verbs, "watch", "watch:watch", "the sentinels: alarms of a run as they come and go")
    watch.add_argument("run", nargs="?", metavar="RUN", help="id, path or ssh://... (default: the newest live run)")
    _add_key(watch)
    _add_json(watch)
    watch.add_argument("--once", action="store_true", help="print the alarms that stand now, and end")
    watch.add_argument("--seconds", type=_above_zero, metavar="N", help="end after N seconds")
    watch.add_argument("--exit-code", action="store_true", help=f"exit with {errors.ALARM} if an alarm was raised")
    _add_alarm_options(watch)
    text = "the cause of a mismatch, how sure that is, and what to do"
    diagnose = _add_verb(verbs, "diagnose", "diagnose:diagnose", text)
    text = "id, path or ssh://... (default: the newest live run, else the newest that has ended)"
    diagnose.add_argument("run", nargs="?", metavar="RUN", help=text)
    text = "have trainer and engines of a live run score some of its tokens again first, in several ways"
    diagnose.add_argument("--active", action="store_true", help=text)
    text = "with --active: how many tokens of each engine (default 96)"
    diagnose.add_argument("--tokens", type=_positive, default=96, metavar="N", help=text)
    diagnose.add_argument(
        "--timeout", type=_above_zero, default=WAIT, metavar="S", help=f"give up after S seconds (default {WAIT:.0f})"
    )
    _add_take_over(diagnose)
    _add_key(diagnose)
    _add_json(diagnose)
    rules = _add_verb(verbs, "sentinels", "", "the rules of the alarms").add_subparsers(metavar="VERB", required=True)
    show = _add_verb(rules, "show", "sentinels:show_rules", "print the rules, with where their limits come from")
    show.add_argument("--rules", metavar="FILE", help="with a file of yours over the packaged rules")
    _add_json(show)
    check = _add_verb(rules, "check", "sentinels:check_rules", "check a file of rules")
    check.add_argument("file", metavar="FILE", help="TOML, see docs/sentinels.md")


def _add_table_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    export = _add_verb(verbs, "export", "export:export", "write a table of a run, live or ended, to a file")
    _add_run(export)
    _add_key(export)
    export.add_argument("--out", required=True, metavar="FILE", help=".parquet, .csv, .ndjson or .arrow")
    export.add_argument("--table", choices=TABLES, default="metrics", help="default metrics: one row a trainer step")
    export.add_argument("--columns", metavar="A,B", help="only these columns (metrics: aliases too)")
    export.add_argument("--steps", metavar="A:B", help="only these steps, both included; also A: or :B")
    export.add_argument("--since", metavar="TIME", help="from then on: 2026-03-01T12:30, Unix seconds, or 15m for ago")
    export.add_argument("--until", metavar="TIME", help="up to then")
    export.add_argument("--long", action="store_true", help="metrics as one row a number: step, time, metric, value")
    query = _add_verb(verbs, "query", "query:query", "SQL over the tables of a run")
    query.add_argument("sql", metavar="SQL", help='for example: SELECT step, "reward/mean" FROM metrics WHERE step > 9')
    _add_run(query)
    _add_key(query)
    query.add_argument("--format", choices=("table", "csv", "json", "parquet"), default="table")
    query.add_argument("--out", metavar="FILE", help="write it: .parquet, .csv, .ndjson or .arrow")
    compact = _add_verb(verbs, "compact", "compact:compact", "write the closed part of a journal as Parquet")
    _add_run(compact)
    compact.add_argument(
        "--check", action="store_true", help="read the written tables back instead, with their checksums"
    )
    importing = _add_verb(verbs, "import", "import_run:run_import", "another framework's log, as a run of its own")
    importing.add_argument(
        "path", metavar="PATH", help="W&B run, TensorBoard events, JSONL, CSV, console log, or a folder"
    )
    importing.add_argument("--as", dest="name", required=True, metavar="NAME", help="first part of the new run's id")
    importing.add_argument(
        "--step", metavar="NAME", help="the logged name to take as the step (default: found in the log)"
    )
    importing.add_argument("--only", metavar="NAME", help="of several runs in a folder or a W&B chart, this one")
    _add_json(importing)


def _add_parity_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    text = "is a run at parity with its reference, and if not, since when"
    compare = _add_verb(verbs, "compare", "compare:compare", text)
    text = "reference runs (seeds of one configuration), then the run: id, path or FILE.parquet"
    compare.add_argument("runs", nargs="+", metavar="RUN", help=text)
    compare.add_argument("--rules", metavar="FILE", help="other rules than console/parity/rules.toml")
    compare.add_argument("--metrics", action="append", default=[], metavar="NAME,...", help="only these metrics")
    text = "judge from this step on, with time to return to the band, as after a switch"
    compare.add_argument("--from", type=_natural, dest="start", metavar="STEP", help=text)
    compare.add_argument("--until", type=_natural, metavar="STEP", help="up to and with this step")
    _add_json(compare)
    text = "the experiment: reference runs, vLLM's defaults, and the fixes switched on live"
    parity = _add_verb(verbs, "parity", "parity:parity", text)
    parity.add_argument("--config", metavar="CONFIG", help="another reference than configs/reference.toml")
    steps, switch, seeds = PARITY
    parity.add_argument("--steps", type=_positive, default=steps, metavar="N", help=f"of each run (default {steps})")
    text = f"the last step before the fixes go on (default {switch})"
    parity.add_argument("--switch", type=_positive, default=switch, metavar="STEP", help=text)
    text = f"reference runs, at least 2 (default {seeds})"
    parity.add_argument("--seeds", type=_positive, default=seeds, metavar="N", help=text)
    text = "an environment that all runs but the reference have their engines in (make migration)"
    parity.add_argument("--candidate", metavar="NAME", help=text)
    parity.add_argument("--out", default="parity.svg", metavar="FILE", help="the figure (default %(default)s)")


def _add_operator_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    fix = _add_verb(verbs, "fix", "", "the backend fixes of a run").add_subparsers(metavar="VERB", required=True)
    listing = _add_verb(fix, "list", "fix:list_fixes", "the state of each fix on each engine")
    _add_run(listing)
    _add_json(listing)
    setting = _add_verb(fix, "set", "fix:set_fix", "switch a fix on every engine, while the run goes on")
    setting.add_argument("id", metavar="ID", help="see: driftline fix list")
    setting.add_argument("value", metavar="VALUE", help="on, off, or what else the fix knows: removed, wait")
    _add_run(setting)
    _add_take_over(setting)
    setting.add_argument("--engine", default="", metavar="NAME", help="on this engine alone, at once (default: on all)")
    _add_wait(setting, "until every engine reports the value")
    _add_json(setting)
    text = "set the fixes and syncs that the diagnosis asks for, in order, and watch what comes of it"
    aligning = _add_verb(fix, "align", "align:align", text)
    aligning.add_argument("--undo", action="store_true", help="set the last alignment back")
    aligning.add_argument("--yes", action="store_true", help="without asking; needed where there is no terminal")
    text = "leave this fix out, or 'sync'; may be given several times"
    aligning.add_argument("--without", action="append", default=[], metavar="FIX", help=text)
    aligning.add_argument("--dry-run", action="store_true", help="print what would be set, and set nothing")
    text = f"trainer steps to watch afterwards (default {ALIGN_STEPS})"
    aligning.add_argument("--steps", type=_natural, default=ALIGN_STEPS, metavar="N", help=text)
    _add_run(aligning)
    _add_take_over(aligning)
    text = f"give up after S seconds, and watch at most as long again (default {WAIT:.0f})"
    aligning.add_argument("--timeout", type=_above_zero, default=WAIT, metavar="S", help=text)
    _add_json(aligning)
    _add_correction_verbs(verbs)
    _add_shadow_verbs(verbs)
    sync = _add_verb(verbs, "sync", "operate:sync", "pause, load weights, resume, on every engine")
    _add_run(sync)
    _add_take_over(sync)
    _add_wait(sync, "until every engine has the weights, and print its phases")
    _add_json(sync)
    for name, text in (
        ("pause", "pause generation on every engine, under a lease"),
        ("resume", "resume generation"),
        ("reset-cache", "empty the prefix cache of every engine that joined by itself"),
        ("digest", "a checksum of the weights that each engine holds, of those that joined by themselves"),
    ):
        verb = _add_verb(verbs, name, f"operate:{name.replace('-', '_')}", text)
        _add_run(verb)
        _add_take_over(verb)
        _add_wait(verb, "until it has taken effect")
        if name in ("reset-cache", "digest"):
            verb.set_defaults(wait=True)  # they are sent for their answers
    stop = _add_verb(verbs, "stop", "stop:stop", "end the run in good order")
    stop.add_argument("target", nargs="?", metavar="RUN", help="the same as --run")
    _add_run(stop)
    _add_take_over(stop)
    _add_wait(stop, "until the run has ended")
    text = "wait, and kill its processes if it has not ended by then: no final checkpoint"
    stop.add_argument("--force", action="store_true", help=text)


def _add_correction_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    text = "objective-side corrections, behind the parity verdict"
    correction = _add_verb(verbs, "correction", "", text).add_subparsers(metavar="VERB", required=True)
    listing = _add_verb(
        correction, "list", "correction:list_corrections", "the corrections, which one is on, and the parity gate"
    )
    _add_run(listing)
    _add_json(listing)
    setting = _add_verb(correction, "set", "correction:set_correction", "correct the objective from now on")
    setting.add_argument("value", metavar="ID", help="see: driftline correction list; off: none")
    text = "although the backend has not passed parity; needed where there is no terminal to ask on"
    setting.add_argument("--despite-parity", action="store_true", help=text)
    _add_run(setting)
    _add_take_over(setting)
    _add_wait(setting, "until the trainer uses it")
    _add_json(setting)


def _add_shadow_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    text = "engine against engine: one scores what another one has sampled"
    shadow = _add_verb(verbs, "shadow", "", text).add_subparsers(metavar="VERB", required=True)
    showing = _add_verb(shadow, "show", "shadow:show", "the share that is wanted, and the newest numbers")
    _add_run(showing)
    _add_json(showing)
    setting = _add_verb(shadow, "set", "shadow:set_share", "score this share of the groups from now on")
    setting.add_argument("share", metavar="SHARE", help="0 to 1, such as .25; off: none")
    _add_run(setting)
    _add_take_over(setting)
    _add_wait(setting, "until it is in force")
    _add_json(setting)


def _add_key_and_doctor_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    doctor = _add_verb(verbs, "doctor", "doctor:run_checks", "check keys, clock, disk and open ports")
    doctor.add_argument("run", nargs="?", metavar="RUN", help="id, path or ssh://... (default: the newest live run)")
    _add_key(doctor)
    _add_json(doctor)
    keys = _add_verb(verbs, "keys", "", "the keys and roles of a run").add_subparsers(metavar="VERB", required=True)
    new = _add_verb(keys, "new", "keys:new_key", "make a key pair and grant it a role")
    new.add_argument("name", metavar="NAME", help="name of the key's owner; also its file in the run's keys folder")
    new.add_argument("--role", choices=ROLES, help=f"what it may do (default {ROLES[0]}, producer with --producer)")
    text = f"what a producer may send, with commas between: {', '.join(KINDS)} (default: by its name)"
    new.add_argument("--producer", metavar="KIND", help=text)
    new.add_argument("--produces", metavar="PATTERN", help="producer names a producer's key may use (default NAME)")
    new.add_argument("--no-tokens", action="store_true", help="no raw tokens: the text that the model wrote")
    _add_run(new)
    listing = _add_verb(keys, "list", "keys:list_keys", "every key that has a role")
    _add_run(listing)
    _add_json(listing)
    revoking = _add_verb(keys, "revoke", "keys:revoke_key", "take a key's rights away, at once")
    revoking.add_argument("key", metavar="KEY", help="name of its file, or its public half; see: driftline keys list")
    _add_run(revoking)


def _add_environment_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    text = "environments of other vLLM versions, made from pins"
    env = _add_verb(verbs, "env", "", text).add_subparsers(metavar="VERB", required=True)
    adding = _add_verb(env, "add", "env:add", "make one and check it; one that is there is left as it is")
    adding.add_argument("name", metavar="NAME", help="for example vllm-0.18.1; see: driftline env list")
    adding.add_argument("--python", metavar="PATH", help="the Python to make it with (default: one that is found)")
    text = "let its compiled part be changed where this system's libstdc++ is too old for it"
    adding.add_argument("--repair", action="store_true", help=text)
    text = "vLLM's CPU build or its ordinary one (default: by whether NVIDIA's driver is loaded)"
    adding.add_argument("--build", choices=("cpu", "cuda"), help=text)
    _add_json(_add_verb(env, "list", "env:list_environments", "those that can be made, and what there is of each"))
    removing = _add_verb(env, "remove", "env:remove", "delete one")
    removing.add_argument("name", metavar="NAME", help="see: driftline env list")
    text = "whether two vLLM versions sample the same, layer by layer, without training"
    migrate = _add_verb(verbs, "migrate", "migrate:migrate", text)
    one = "a version (0.18.1), an environment, the path of a Python, or this"
    migrate.add_argument("source", metavar="FROM", help=one)
    migrate.add_argument("target", metavar="TO", help="the same of the version to go to")
    migrate.add_argument("--model", metavar="FOLDER", help="a local Hugging Face model (default: a tiny one)")
    dtypes = ("auto", "float32", "bfloat16", "float16")
    migrate.add_argument("--dtype", choices=dtypes, default="auto", help="of the model (default: by the device)")
    text = "token ids to begin with, a list a line (default: random ones)"
    migrate.add_argument("--prompts", type=Path, metavar="FILE", help=text)
    for flag, number, what in (
        ("--count", 16, "random prompts"), ("--samples", 4, "samples of each"), ("--tokens", 16, "tokens of a sample"),
    ):  # fmt: skip
        migrate.add_argument(flag, type=_positive, default=number, metavar="N", help=f"{what} (default {number})")
    text = "of sampling (default 0.7)"
    migrate.add_argument("--temperature", type=_above_zero, default=0.7, metavar="T", help=text)
    migrate.add_argument("--seed", type=_natural, default=0, metavar="N", help="of prompts and weights (default 0)")
    migrate.add_argument("--out", type=Path, metavar="FILE", help="write the page there (default: print it)")
    migrate.add_argument("--folder", metavar="FOLDER", help="keep the engines' logs and all numbers there")
    migrate.add_argument("--make", action="store_true", help="make an environment that is missing, as env add does")
    text = "with --make: let the compiled part be changed where this system's libstdc++ is too old for it"
    migrate.add_argument("--repair", action="store_true", help=text)
    _add_json(migrate)


def _add_settings_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    text = "your own configuration: theme, keys, marker, runs, notifications"
    file = _add_verb(verbs, "config", "", text).add_subparsers(metavar="VERB", required=True)
    show = _add_verb(file, "show", "config:show", "every key, its value, and where that comes from")
    _add_screen_options(show)
    _add_theme(show)
    _add_json(show)
    _add_verb(file, "path", "config:path", "where the file is, or would be")
    checking = _add_verb(file, "check", "config:check", "check the file, or the configuration of a run")
    checking.add_argument(
        "run", metavar="FILE", type=Path, nargs="?", help="a run's TOML file (default: your own file)"
    )
    keys = _add_verb(file, "keys", "config:keys", "the bindings by id, as the file's [keys] names them")
    _add_json(keys)
    text = "a script that completes for a shell"
    completion = _add_verb(verbs, "completion", "completion:completion", text)
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), metavar="SHELL", help="bash, zsh or fish")


_GROUPS: Final[dict[str, Callable[[argparse._SubParsersAction[Parser]], None]]] = {
    **dict.fromkeys(("run", "demo", "simulate", "hub", "follow", "bridge"), _add_starting_verbs),
    "attach": _add_attach,
    **dict.fromkeys(("replay", "evidence"), _add_recorded_run_verbs),
    **dict.fromkeys(("list", "status", "tail"), _add_status_verbs),
    "serve": _add_serve,
    **dict.fromkeys(("watch", "diagnose", "sentinels"), _add_sentinel_verbs),
    **dict.fromkeys(("export", "query", "compact", "import"), _add_table_verbs),
    **dict.fromkeys(("compare", "parity"), _add_parity_verbs),
    **dict.fromkeys(("fix", "correction", "shadow", "sync", "pause", "resume"), _add_operator_verbs),
    **dict.fromkeys(("reset-cache", "digest", "stop"), _add_operator_verbs),
    **dict.fromkeys(("doctor", "keys"), _add_key_and_doctor_verbs),
    **dict.fromkeys(("env", "migrate"), _add_environment_verbs),
    **dict.fromkeys(("config", "completion"), _add_settings_verbs),
}
"""The function that adds each verb to the parser, in the order of the help."""


def _add_verb(group: argparse._SubParsersAction[Parser], name: str, target: str, text: str) -> Parser:
    end = "" if text.endswith("?") else "."
    parser = group.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}{end}")
    if target:
        parser.set_defaults(verb=f"console.cli.verbs.{target}")
    return parser


def _add_run(parser: Parser) -> None:
    parser.add_argument(
        "--run", metavar="RUN", help="id, path or ssh://... (default: $DRIFTLINE_RUN, else the newest live run)"
    )


def _add_key(parser: Parser) -> None:
    parser.add_argument("--key", metavar="FILE", help="a key file instead of the run's own (default $DRIFTLINE_KEY)")


def _add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="output as JSON, for programs")


def _add_alarm_options(parser: Parser) -> None:
    parser.add_argument("--rules", metavar="FILE", help="TOML over the packaged rules of the sentinels")
    parser.add_argument("--bell", action="store_true", help="ring the terminal's bell when an alarm is raised")
    parser.add_argument("--notify", action="store_true", help="have the terminal notify (OSC 9) of a raised alarm")
    text = "run a program, without a shell, for each raised alarm; its text is the last argument"
    parser.add_argument("--on-alarm", metavar="CMD", help=text)


def _add_wait(parser: Parser, until: str) -> None:
    parser.add_argument("--wait", action="store_true", help=f"wait {until}")
    parser.add_argument(
        "--timeout", type=_above_zero, default=WAIT, metavar="S", help=f"give up after S seconds (default {WAIT:.0f})"
    )


def _add_take_over(parser: Parser) -> None:
    parser.add_argument("--take-over", action="store_true", help="act even while another session has the lease")


def _add_screen_options(parser: Parser) -> None:
    # The defaults come from the operator's configuration: `_configure`.
    parser.add_argument(
        "--marker", choices=MARKERS, help=f"characters that charts are drawn with (default {MARKERS[0]})"
    )
    parser.add_argument("--fps", type=_fps, metavar="N", help="redraws a second at most (default 4)")


def _add_theme(parser: Parser) -> None:
    parser.add_argument("--theme", choices=THEMES, help="colours (default auto: by the terminal)")


def _natural(text: str) -> int:
    return _number(text, int, "a whole number from 0 up", lambda value: value >= 0)


def _positive(text: str) -> int:
    return _number(text, int, "a whole number from 1 up", lambda value: value >= 1)


def _fps(text: str) -> int:
    return _number(text, int, "a whole number from 1 to 30", lambda value: 1 <= value <= 30)


def _above_zero(text: str) -> float:
    return _number(text, float, "a number above 0", lambda value: 0 < value < float("inf"))


def _number(text: str, kind: type[T], allowed: str, fits: Callable[[T], bool]) -> T:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"'{text}' is not {allowed}")
    return value
