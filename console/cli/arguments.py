"""Arguments of every verb. A verb's module is named here and imported only when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from console import errors
from console.cli.operator_arguments import add_operator_verbs
from console.cli.options import (
    WAIT,
    Parser,
    above_zero,
    add_alarm_options,
    add_json,
    add_key,
    add_run,
    add_screen_options,
    add_take_over,
    add_theme,
    add_verb,
    natural,
    positive,
)
from driftline import __version__

ROLES = ("viewer", "operator", "producer")
KINDS = ("trainer", "engine", "supervisor", "metrics")
TABLES = (
    "metrics", "tokens", "sequences", "syncs", "spans", "fixes", "effects", "events", "commands", "engines", "states",
)  # fmt: skip
PARITY = (100, 20, 3)
"""Steps of a run, step of the switch and reference runs of the parity experiment."""


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
    run = add_verb(verbs, "run", "run:run", "start a run and watch it")
    run.add_argument("config", metavar="CONFIG", help="TOML file, for example configs/demo.toml")
    run.add_argument("--steps", type=positive, metavar="N", help="trainer steps, instead of run.steps")
    run.add_argument("--name", help="first part of the run's id, instead of run.name")
    run.add_argument("--headless", action="store_true", help="print steps and events instead of opening the console")
    text = "let the run go on without this terminal, and without its supervisor; driftline stop ends it"
    run.add_argument("--detach", action="store_true", help=text)
    add_screen_options(run)
    demo = add_verb(verbs, "demo", "run:demo", "the demonstration: vLLM's defaults, then the fixes, live")
    demo.add_argument("--config", metavar="CONFIG", help="another file than configs/demo.toml")
    demo.add_argument("--headless", action="store_true", help="switch the fixes automatically, as without a terminal")
    add_screen_options(demo)
    simulate = add_verb(verbs, "simulate", "hub:simulate", "a synthetic feed, to learn the console on")
    simulate.add_argument("--steps", type=natural, default=900, metavar="N", help="0: until ctrl-C (default 900)")
    simulate.add_argument("--rate", type=above_zero, default=2.0, metavar="HZ", help="steps a second (default 2)")
    simulate.add_argument("--engines", type=positive, default=2, metavar="N", help="synthetic engines (default 2)")
    simulate.add_argument("--seed", type=natural, default=0, metavar="N", help="seed of its random numbers (default 0)")
    hub = add_verb(verbs, "hub", "hub:hub", "a hub for your own trainer")
    hub.add_argument("--name", default="run", help="first part of the run's id (default run)")
    hub.add_argument("--bind", default="127.0.0.1", metavar="ADDRESS", help="interface to listen on (default loopback)")
    hub.add_argument("--run", metavar="RUN", help="an existing run directory, to go on with it")
    hub.add_argument("--keep-gb", type=above_zero, default=0.0, metavar="N", help="only the journal's newest N GB")
    hub.add_argument("--keep-hours", type=above_zero, default=0.0, metavar="N", help="only N hours of the journal")
    hub.add_argument("--compact", action="store_true", help="write the closed part of the journal as Parquet meanwhile")
    follow = add_verb(verbs, "follow", "follow:follow", "another framework's run, live, by the files that it writes")
    follow.add_argument(
        "path", metavar="PATH", help="a log or a folder as `driftline import` reads it, also one that is not there yet"
    )
    follow.add_argument("--as", dest="name", default="followed", metavar="NAME", help="first part of the run's id")
    follow.add_argument(
        "--step", metavar="NAME", help="the logged name to take as the step (default: found in the log)"
    )
    follow.add_argument("--only", metavar="NAME", help="of several runs in a folder, this one")
    follow.add_argument("--once", action="store_true", help="end once all that is there now was sent")
    bridge = add_verb(verbs, "bridge", "bridge:bridge", "a vLLM server without the plugin, as an engine of a run")
    text = "http://HOST:PORT of the server (default http://127.0.0.1:8000)"
    bridge.add_argument("url", nargs="?", metavar="URL", help=text)
    bridge.add_argument("--run", metavar="RUN", help="id, path or connection file (default: the newest live run)")
    bridge.add_argument("--key", metavar="FILE", help="a producer's key (default: the run's own for engines)")
    bridge.add_argument("--name", metavar="NAME", help="the engine's name in the run (default engine-PORT)")


def _add_attach(verbs: argparse._SubParsersAction[Parser]) -> None:
    attach = add_verb(verbs, "attach", "attach:attach", "open the console on a live run")
    attach.add_argument("runs", nargs="*", metavar="RUN", help="also ssh://[user@]host[:port]/path/to/run; several too")
    attach.add_argument("--connection", metavar="FILE", help="a connection file from elsewhere (needs --key)")
    add_key(attach)
    attach.add_argument("--operate", action="store_true", help="allow acting on the run (needs the operator's key)")
    text = "compare the run with this one (id, path or FILE.parquet); again for more seeds of it"
    attach.add_argument("--reference", action="append", default=[], metavar="RUN", help=text)
    add_screen_options(attach)
    add_theme(attach)
    add_alarm_options(attach)


def _add_recorded_run_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    replay = add_verb(verbs, "replay", "replay:replay", "a recorded run on the same screens, from any step")
    replay.add_argument("run", nargs="?", metavar="RUN", help="id or path of a run directory, or of a copy of one")
    replay.add_argument("--from", dest="start", type=natural, metavar="STEP", help="play from this step on")
    replay.add_argument("--speed", type=above_zero, metavar="X", help="times as fast as it was (default 1)")
    replay.add_argument("--rules", metavar="FILE", help="TOML over the packaged rules of the sentinels")
    add_screen_options(replay)
    add_theme(replay)
    evidence = add_verb(verbs, "evidence", "evidence:evidence", "tables, pictures and a summary of a run in one folder")
    evidence.add_argument("run", nargs="?", metavar="RUN", help="id or path of a run directory, or of a copy of one")
    evidence.add_argument("--out", metavar="FOLDER", help="a new folder (default: in the run's snapshots)")


def _add_status_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    listing = add_verb(verbs, "list", "list:print_runs", "the runs here, newest first")
    add_json(listing)
    status = add_verb(verbs, "status", "status:status", "one line about a run, fit for a status bar")
    add_run(status)
    add_key(status)
    text = "a line for each engine too, and what differs between their configurations"
    status.add_argument("--engines", action="store_true", help=text)
    add_json(status)
    tail = add_verb(verbs, "tail", "tail:tail", "one line for each step and event, as they come")
    add_run(tail)
    add_key(tail)
    tail.add_argument("--seconds", type=above_zero, metavar="N", help="end after N seconds")


def _add_serve(verbs: argparse._SubParsersAction[Parser]) -> None:
    serve = add_verb(verbs, "serve", "serve:serve", "the console in a browser, read-only, on loopback")
    serve.add_argument("run", nargs="?", metavar="RUN", help="id or path of a run here (default: the newest live one)")
    add_key(serve)
    serve.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (default %(default)s)")
    serve.add_argument("--port", type=natural, default=0, metavar="N", help="0: a free one (default)")
    serve.add_argument("--public", action="store_true", help="allow an address that other machines can reach")
    serve.add_argument("--rules", metavar="FILE", help="TOML over the packaged rules of the sentinels")
    add_screen_options(serve)
    add_theme(serve)


def _add_sentinel_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    watch = add_verb(verbs, "watch", "watch:watch", "the sentinels: alarms of a run as they come and go")
    watch.add_argument("run", nargs="?", metavar="RUN", help="id, path or ssh://... (default: the newest live run)")
    add_key(watch)
    add_json(watch)
    watch.add_argument("--once", action="store_true", help="print the alarms that stand now, and end")
    watch.add_argument("--seconds", type=above_zero, metavar="N", help="end after N seconds")
    watch.add_argument("--exit-code", action="store_true", help=f"exit with {errors.ALARM} if an alarm was raised")
    add_alarm_options(watch)
    text = "the cause of a mismatch, how sure that is, and what to do"
    diagnose = add_verb(verbs, "diagnose", "diagnose:diagnose", text)
    text = "id, path or ssh://... (default: the newest live run, else the newest that has ended)"
    diagnose.add_argument("run", nargs="?", metavar="RUN", help=text)
    text = "have trainer and engines of a live run score some of its tokens again first, in several ways"
    diagnose.add_argument("--active", action="store_true", help=text)
    text = "with --active: how many tokens of each engine (default 96)"
    diagnose.add_argument("--tokens", type=positive, default=96, metavar="N", help=text)
    diagnose.add_argument(
        "--timeout", type=above_zero, default=WAIT, metavar="S", help=f"give up after S seconds (default {WAIT:.0f})"
    )
    add_take_over(diagnose)
    add_key(diagnose)
    add_json(diagnose)
    rules = add_verb(verbs, "sentinels", "", "the rules of the alarms").add_subparsers(metavar="VERB", required=True)
    show = add_verb(rules, "show", "sentinels:show_rules", "print the rules, with where their limits come from")
    show.add_argument("--rules", metavar="FILE", help="with a file of yours over the packaged rules")
    add_json(show)
    check = add_verb(rules, "check", "sentinels:check_rules", "check a file of rules")
    check.add_argument("file", metavar="FILE", help="TOML, see docs/sentinels.md")


def _add_table_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    export = add_verb(verbs, "export", "export:export", "write a table of a run, live or ended, to a file")
    add_run(export)
    add_key(export)
    export.add_argument("--out", required=True, metavar="FILE", help=".parquet, .csv, .ndjson or .arrow")
    export.add_argument("--table", choices=TABLES, default="metrics", help="default metrics: one row a trainer step")
    export.add_argument("--columns", metavar="A,B", help="only these columns (metrics: aliases too)")
    export.add_argument("--steps", metavar="A:B", help="only these steps, both included; also A: or :B")
    export.add_argument("--since", metavar="TIME", help="from then on: 2026-03-01T12:30, Unix seconds, or 15m for ago")
    export.add_argument("--until", metavar="TIME", help="up to then")
    export.add_argument("--long", action="store_true", help="metrics as one row a number: step, time, metric, value")
    query = add_verb(verbs, "query", "query:query", "SQL over the tables of a run")
    query.add_argument("sql", metavar="SQL", help='for example: SELECT step, "reward/mean" FROM metrics WHERE step > 9')
    add_run(query)
    add_key(query)
    query.add_argument("--format", choices=("table", "csv", "json", "parquet"), default="table")
    query.add_argument("--out", metavar="FILE", help="write it: .parquet, .csv, .ndjson or .arrow")
    compact = add_verb(verbs, "compact", "compact:compact", "write the closed part of a journal as Parquet")
    add_run(compact)
    compact.add_argument(
        "--check", action="store_true", help="read the written tables back instead, with their checksums"
    )
    importing = add_verb(verbs, "import", "import_run:run_import", "another framework's log, as a run of its own")
    importing.add_argument(
        "path", metavar="PATH", help="W&B run, TensorBoard events, JSONL, CSV, console log, or a folder"
    )
    importing.add_argument("--as", dest="name", required=True, metavar="NAME", help="first part of the new run's id")
    importing.add_argument(
        "--step", metavar="NAME", help="the logged name to take as the step (default: found in the log)"
    )
    importing.add_argument("--only", metavar="NAME", help="of several runs in a folder or a W&B chart, this one")
    add_json(importing)


def _add_parity_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    text = "is a run at parity with its reference, and if not, since when"
    compare = add_verb(verbs, "compare", "compare:compare", text)
    text = "reference runs (seeds of one configuration), then the run: id, path or FILE.parquet"
    compare.add_argument("runs", nargs="+", metavar="RUN", help=text)
    compare.add_argument("--rules", metavar="FILE", help="other rules than console/parity/rules.toml")
    compare.add_argument("--metrics", action="append", default=[], metavar="NAME,...", help="only these metrics")
    text = "judge from this step on, with time to return to the band, as after a switch"
    compare.add_argument("--from", type=natural, dest="start", metavar="STEP", help=text)
    compare.add_argument("--until", type=natural, metavar="STEP", help="up to and with this step")
    add_json(compare)
    text = "the experiment: reference runs, vLLM's defaults, and the fixes switched on live"
    parity = add_verb(verbs, "parity", "parity:parity", text)
    parity.add_argument("--config", metavar="CONFIG", help="another reference than configs/reference.toml")
    steps, switch, seeds = PARITY
    parity.add_argument("--steps", type=positive, default=steps, metavar="N", help=f"of each run (default {steps})")
    text = f"the last step before the fixes go on (default {switch})"
    parity.add_argument("--switch", type=positive, default=switch, metavar="STEP", help=text)
    text = f"reference runs, at least 2 (default {seeds})"
    parity.add_argument("--seeds", type=positive, default=seeds, metavar="N", help=text)
    text = "an environment that all runs but the reference have their engines in (make migration)"
    parity.add_argument("--candidate", metavar="NAME", help=text)
    parity.add_argument("--out", default="parity.svg", metavar="FILE", help="the figure (default %(default)s)")


def _add_key_and_doctor_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    doctor = add_verb(verbs, "doctor", "doctor:run_checks", "check keys, clock, disk and open ports")
    doctor.add_argument("run", nargs="?", metavar="RUN", help="id, path or ssh://... (default: the newest live run)")
    add_key(doctor)
    add_json(doctor)
    keys = add_verb(verbs, "keys", "", "the keys and roles of a run").add_subparsers(metavar="VERB", required=True)
    new = add_verb(keys, "new", "keys:new_key", "make a key pair and grant it a role")
    new.add_argument("name", metavar="NAME", help="name of the key's owner; also its file in the run's keys folder")
    new.add_argument("--role", choices=ROLES, help=f"what it may do (default {ROLES[0]}, producer with --producer)")
    text = f"what a producer may send, with commas between: {', '.join(KINDS)} (default: by its name)"
    new.add_argument("--producer", metavar="KIND", help=text)
    new.add_argument("--produces", metavar="PATTERN", help="producer names a producer's key may use (default NAME)")
    new.add_argument("--no-tokens", action="store_true", help="no raw tokens: the text that the model wrote")
    add_run(new)
    listing = add_verb(keys, "list", "keys:list_keys", "every key that has a role")
    add_run(listing)
    add_json(listing)
    revoking = add_verb(keys, "revoke", "keys:revoke_key", "take a key's rights away, at once")
    revoking.add_argument("key", metavar="KEY", help="name of its file, or its public half; see: driftline keys list")
    add_run(revoking)


def _add_environment_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    text = "environments of other vLLM versions, made from pins"
    env = add_verb(verbs, "env", "", text).add_subparsers(metavar="VERB", required=True)
    adding = add_verb(env, "add", "env:add", "make one and check it; one that is there is left as it is")
    adding.add_argument("name", metavar="NAME", help="for example vllm-0.18.1; see: driftline env list")
    adding.add_argument("--python", metavar="PATH", help="the Python to make it with (default: one that is found)")
    text = "let its compiled part be changed where this system's libstdc++ is too old for it"
    adding.add_argument("--repair", action="store_true", help=text)
    text = "vLLM's CPU build or its ordinary one (default: by whether NVIDIA's driver is loaded)"
    adding.add_argument("--build", choices=("cpu", "cuda"), help=text)
    add_json(add_verb(env, "list", "env:list_environments", "those that can be made, and what there is of each"))
    removing = add_verb(env, "remove", "env:remove", "delete one")
    removing.add_argument("name", metavar="NAME", help="see: driftline env list")
    text = "whether two vLLM versions sample the same, layer by layer, without training"
    migrate = add_verb(verbs, "migrate", "migrate:migrate", text)
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
        migrate.add_argument(flag, type=positive, default=number, metavar="N", help=f"{what} (default {number})")
    text = "of sampling (default 0.7)"
    migrate.add_argument("--temperature", type=above_zero, default=0.7, metavar="T", help=text)
    migrate.add_argument("--seed", type=natural, default=0, metavar="N", help="of prompts and weights (default 0)")
    migrate.add_argument("--out", type=Path, metavar="FILE", help="write the page there (default: print it)")
    migrate.add_argument("--folder", metavar="FOLDER", help="keep the engines' logs and all numbers there")
    migrate.add_argument("--make", action="store_true", help="make an environment that is missing, as env add does")
    text = "with --make: let the compiled part be changed where this system's libstdc++ is too old for it"
    migrate.add_argument("--repair", action="store_true", help=text)
    add_json(migrate)


def _add_settings_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    text = "your own configuration: theme, keys, marker, runs, notifications"
    file = add_verb(verbs, "config", "", text).add_subparsers(metavar="VERB", required=True)
    show = add_verb(file, "show", "config:show", "every key, its value, and where that comes from")
    add_screen_options(show)
    add_theme(show)
    add_json(show)
    add_verb(file, "path", "config:path", "where the file is, or would be")
    checking = add_verb(file, "check", "config:check", "check the file, or the configuration of a run")
    checking.add_argument(
        "run", metavar="FILE", type=Path, nargs="?", help="a run's TOML file (default: your own file)"
    )
    keys = add_verb(file, "keys", "config:keys", "the bindings by id, as the file's [keys] names them")
    add_json(keys)
    text = "a script that completes for a shell"
    completion = add_verb(verbs, "completion", "completion:completion", text)
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
    **dict.fromkeys(("fix", "correction", "shadow", "sync", "pause", "resume"), add_operator_verbs),
    **dict.fromkeys(("reset-cache", "digest", "stop"), add_operator_verbs),
    **dict.fromkeys(("doctor", "keys"), _add_key_and_doctor_verbs),
    **dict.fromkeys(("env", "migrate"), _add_environment_verbs),
    **dict.fromkeys(("config", "completion"), _add_settings_verbs),
}
"""The function that adds each verb to the parser, in the order of the help."""
