"""`driftline sentinels show` and `check_rules`: the rules, as they will be applied."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec

from console.errors import OK, USAGE, CommandError
from console.formatting import short, to_json
from console.sentinels.kinds import Baseline, Engine, Feed, Limit, Missing, Rule, Skew, StepRule, Steps
from console.sentinels.notify import AlertError, Alerts, split
from console.sentinels.rules import Rules, RulesError, load


def show_rules(args: argparse.Namespace) -> int:
    """Print every rule with its limit and the source of the limit; --json prints an object by name."""
    rules = read_rules(args.rules)
    if args.json:
        print(to_json({name: _document(rule) for name, rule in rules.rules.items()}))
        return OK
    width = max(map(len, rules.rules))
    for name, rule in rules.rules.items():
        print(f"{name:<{width}}  {'' if rule.enabled else 'OFF  '}{describe(rule)}")
        if rule.source:
            print(f"{'':<{width}}  source: {rule.source}")
    return OK


def check_rules(args: argparse.Namespace) -> int:
    """Exit code 0 and one line when the file can be used, 2 and one sentence when not."""
    rules = read_rules(args.file)
    on = sum(rule.enabled for rule in rules.rules.values())
    off = len(rules.rules) - on
    print(f"{args.file}: valid: {on} rules on, {off} off, including the packaged ones")
    return OK


def read_rules(path: str | None) -> Rules:
    """The packaged rules with a user's file over them. Raises CommandError."""
    try:
        return load(Path(path) if path is not None else None)
    except RulesError as error:
        raise CommandError(str(error), USAGE) from error


def read_alerts(args: argparse.Namespace) -> Alerts:
    """How alarms are reported, as --bell, --notify and --on-alarm say. Raises CommandError."""
    try:
        command = split(args.on_alarm) if args.on_alarm is not None else ()
    except AlertError as error:
        raise CommandError(str(error), USAGE) from error
    return Alerts(args.bell, args.notify, command)


def describe(rule: Rule) -> str:
    """A rule as a sentence."""
    match rule:
        case Limit():
            sides = [f"above {short(rule.high)}"] if rule.high is not None else []
            sides += [f"below {short(rule.low)}"] if rule.low is not None else []
            text = f"{_judged(rule)} {' or '.join(sides)}, {_votes(rule)}"
            if rule.z is not None:
                text += f", and by {rule.z:g} sigma where it usually keeps that"
            return text + _unless_reported(rule)
        case Baseline():
            side = "above" if rule.side == "high" else "below"
            least = f"x{rule.factor:g}" if rule.factor is not None else f"{rule.change:g}"
            past = f"{'last' if rule.reference == 'recent' else 'first'} {rule.window} steps"
            if rule.reference == "recent" and rule.gap > rule.window // 2:
                past = f"{rule.window} steps until {rule.gap} steps before"
            text = f"{_judged(rule)} {side} the median of the {past} by {least} and {rule.z:g} sigma, {_votes(rule)}"
            if rule.unless is not None:
                text += f", unless {rule.unless.metric} has risen by {rule.unless.by:g} and {rule.unless.z:g} sigma"
            return text + _unless_reported(rule)
        case Missing():
            which = ", ".join(rule.metrics) or "a metric with a limit or a rule"
            return f"{which} reported before and absent or not a number now, {_votes(rule)}"
        case Skew():
            return f"an engine more than {rule.syncs} sync{'s' * (rule.syncs != 1)} behind for {rule.seconds:g} s"
        case Engine():
            return (
                f"an engine dead, silent for {rule.silent:g} s, with requests and no token for {rule.no_tokens:g} s, "
                f"in one sync for {rule.syncing:g} s or starting for {rule.starting:g} s"
            )
        case Steps():
            return f"no step for {rule.seconds:g} s and {rule.factor:g} times the usual"
        case Feed():
            return f"the hub silent for {rule.seconds:g} s"


def _judged(rule: Limit | Baseline) -> str:
    return rule.metric if rule.span == 1 else f"{rule.metric} (median of {rule.span} steps)"


def _unless_reported(rule: Limit | Baseline) -> str:
    return f", unless reported: {', '.join(rule.unless_reported)}" if rule.unless_reported else ""


def _votes(rule: StepRule) -> str:
    if rule.votes == 1:
        return "at once"
    return f"{rule.hold} of {rule.votes} steps" if rule.votes > rule.hold else f"{rule.hold} steps in a row"


def _document(rule: Rule) -> dict[str, Any]:
    built: dict[str, Any] = msgspec.to_builtins(rule)
    return built
