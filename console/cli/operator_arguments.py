"""Arguments of the verbs that act on a run: fixes, corrections, shadow scoring, syncs, pauses, its end."""

from __future__ import annotations

import argparse

from console.cli.options import WAIT, Parser, above_zero, add_json, add_run, add_take_over, add_verb, add_wait, natural

ALIGN_STEPS = 10


def add_operator_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    """Add all of them."""
    fix = add_verb(verbs, "fix", "", "the backend fixes of a run").add_subparsers(metavar="VERB", required=True)
    listing = add_verb(fix, "list", "fix:list_fixes", "the state of each fix on each engine")
    add_run(listing)
    add_json(listing)
    setting = add_verb(fix, "set", "fix:set_fix", "switch a fix on every engine, while the run goes on")
    setting.add_argument("id", metavar="ID", help="see: driftline fix list")
    setting.add_argument("value", metavar="VALUE", help="on, off, or what else the fix knows: removed, wait")
    add_run(setting)
    add_take_over(setting)
    setting.add_argument("--engine", default="", metavar="NAME", help="on this engine alone, at once (default: on all)")
    add_wait(setting, "until every engine reports the value")
    add_json(setting)
    text = "set the fixes and syncs that the diagnosis asks for, in order, and watch what comes of it"
    aligning = add_verb(fix, "align", "align:align", text)
    aligning.add_argument("--undo", action="store_true", help="set the last alignment back")
    aligning.add_argument("--yes", action="store_true", help="without asking; needed where there is no terminal")
    text = "leave this fix out, or 'sync'; may be given several times"
    aligning.add_argument("--without", action="append", default=[], metavar="FIX", help=text)
    aligning.add_argument("--dry-run", action="store_true", help="print what would be set, and set nothing")
    text = f"trainer steps to watch afterwards (default {ALIGN_STEPS})"
    aligning.add_argument("--steps", type=natural, default=ALIGN_STEPS, metavar="N", help=text)
    add_run(aligning)
    add_take_over(aligning)
    text = f"give up after S seconds, and watch at most as long again (default {WAIT:.0f})"
    aligning.add_argument("--timeout", type=above_zero, default=WAIT, metavar="S", help=text)
    add_json(aligning)
    _add_correction_verbs(verbs)
    _add_shadow_verbs(verbs)
    sync = add_verb(verbs, "sync", "operate:sync", "pause, load weights, resume, on every engine")
    add_run(sync)
    add_take_over(sync)
    add_wait(sync, "until every engine has the weights, and print its phases")
    add_json(sync)
    for name, text in (
        ("pause", "pause generation on every engine, under a lease"),
        ("resume", "resume generation"),
        ("reset-cache", "empty the prefix cache of every engine that joined by itself"),
        ("digest", "a checksum of the weights that each engine holds, of those that joined by themselves"),
    ):
        verb = add_verb(verbs, name, f"operate:{name.replace('-', '_')}", text)
        add_run(verb)
        add_take_over(verb)
        add_wait(verb, "until it has taken effect")
        if name in ("reset-cache", "digest"):
            verb.set_defaults(wait=True)  # they are sent for their answers
    stop = add_verb(verbs, "stop", "stop:stop", "end the run in good order")
    stop.add_argument("target", nargs="?", metavar="RUN", help="the same as --run")
    add_run(stop)
    add_take_over(stop)
    add_wait(stop, "until the run has ended")
    text = "wait, and kill its processes if it has not ended by then: no final checkpoint"
    stop.add_argument("--force", action="store_true", help=text)


def _add_correction_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    text = "objective-side corrections, behind the parity verdict"
    correction = add_verb(verbs, "correction", "", text).add_subparsers(metavar="VERB", required=True)
    listing = add_verb(
        correction, "list", "correction:list_corrections", "the corrections, which one is on, and the parity gate"
    )
    add_run(listing)
    add_json(listing)
    setting = add_verb(correction, "set", "correction:set_correction", "correct the objective from now on")
    setting.add_argument("value", metavar="ID", help="see: driftline correction list; off: none")
    text = "although the backend has not passed parity; needed where there is no terminal to ask on"
    setting.add_argument("--despite-parity", action="store_true", help=text)
    add_run(setting)
    add_take_over(setting)
    add_wait(setting, "until the trainer uses it")
    add_json(setting)


def _add_shadow_verbs(verbs: argparse._SubParsersAction[Parser]) -> None:
    text = "engine against engine: one scores what another one has sampled"
    shadow = add_verb(verbs, "shadow", "", text).add_subparsers(metavar="VERB", required=True)
    showing = add_verb(shadow, "show", "shadow:show", "the share that is wanted, and the newest numbers")
    add_run(showing)
    add_json(showing)
    setting = add_verb(shadow, "set", "shadow:set_share", "score this share of the groups from now on")
    setting.add_argument("share", metavar="SHARE", help="0 to 1, such as .25; off: none")
    add_run(setting)
    add_take_over(setting)
    add_wait(setting, "until it is in force")
    add_json(setting)
