"""The engines of a run as lines of text: how each is and how it joined, then what differs between them. Pure."""

from __future__ import annotations

from console.formatting import clock, short
from console.status.engine_config import differences, joined_as, lines
from console.status.fix_coverage import coverage
from console.status.summary import Summary
from driftline.frames import EngineState
from driftline.text import natural, sanitize


def engine_lines(summary: Summary, now: float) -> list[str]:
    """A line for each engine in natural order, for each fix that they report, for what differs. `now`: Unix time."""
    if not summary.engines:
        return ["no engine has reported"]
    wide = max(len(name) for name in summary.engines)
    made = [f"{name:<{wide}}  {_line(summary.engines[name], now)}" for name in sorted(summary.engines, key=natural)]
    made += [f"fix {state.fix}: {coverage(state).text}" for state in summary.fixes.values() if state.engines]
    return [sanitize(line) for line in [*made, *lines(differences(summary.engines, summary.fixes))]]


def _line(engine: EngineState, now: float) -> str:
    """`running v41  940 tok/s  cuda vLLM 0.32.0  plugin in verl 0.6.0, key engine-*, since 12:03:20`."""
    version = f" v{engine.version}" if engine.version >= 0 else ""
    kind = f"{engine.backend} vLLM {engine.vllm}".strip() if engine.vllm else engine.backend
    since = f", since {clock(engine.since, now)}" if engine.since else ""
    parts = [f"{engine.phase}{version}", f"{short(engine.tokens_per_s)} tok/s", kind, f"{joined_as(engine)}{since}"]
    if engine.phase == "dead":
        parts = [f"dead{version}", engine.detail]
    return "  ".join(part for part in parts if part)
