"""Catalogue of the backend fixes: what each is, which layer it repairs and how it can take effect.

This is static knowledge. What a fix *is doing* in a run is `driftline.frames.FixState`; what an engine can do
about it on its hardware is decided and reported by that engine.
"""

from __future__ import annotations

from typing import Final

import msgspec

from driftline.frames import How

ON: Final = "on"
OFF: Final = "off"
REMOVED: Final = "removed"
"""Of `prefix-cache-off`: engines built without a prefix cache, by a restart."""
WAIT: Final = "wait"
"""Of `inflight-keep`: a pause lets requests in flight finish, then clears the caches."""


class Fix(msgspec.Struct, frozen=True):
    """One backend fix. `values[0]` is vLLM's default behaviour, "off" in the words of this console.

    `repairs` are the values under which the cause is gone; `how` is how `repairs[0]` takes effect.
    """

    id: str
    title: str
    layer: str
    values: tuple[str, ...]
    how: How
    vllm_default: str
    summary: str
    why: str
    repairs: tuple[str, ...] = (ON,)


FIXES: Final[tuple[Fix, ...]] = (
    Fix(
        id="processed-logprobs",
        title="processed logprobs",
        layer="semantics",
        values=(OFF, ON),
        how="live",
        vllm_default="raw_logprobs: logprobs before temperature and penalties",
        summary="logprobs of the distribution that was sampled from",
        why="the trainer divides logits by the temperature; raw logprobs do not, so every ratio is off",
    ),
    Fix(
        id="prefix-cache-off",
        title="prefix cache off",
        layer="inference path",
        values=(OFF, ON, REMOVED),
        how="live",
        vllm_default="prefix caching on: blocks are reused across requests",
        summary="requests stop reading cached prefix blocks; 'removed' rebuilds the engines without a prefix cache",
        why="blocks computed with older weights serve requests that count as newer ones",
        repairs=(ON, REMOVED),
    ),
    Fix(
        id="async-scheduling-off",
        title="async scheduling off",
        layer="inference path",
        values=(OFF, ON),
        how="engine_restart",
        vllm_default="async scheduling on where the platform supports it",
        summary="the scheduler does not run ahead of the sampler",
        why="a step scheduled ahead of a weight update samples with weights it was not counted under",
    ),
    Fix(
        id="inflight-keep",
        title="in-flight keep",
        layer="weight-update path",
        values=(OFF, ON, WAIT),
        how="next_sync",
        vllm_default="pause aborts requests in flight and clears caches",
        summary="pause keeps requests in flight and clears no cache; 'wait' lets them finish first",
        why="aborting throws rollouts away; clearing recomputes them under other weights than sampled them",
    ),
    Fix(
        id="fp32-lm-head",
        title="fp32 lm_head",
        layer="numerics",
        values=(OFF, ON),
        how="next_sync",
        vllm_default="lm_head in the model's own dtype (bfloat16)",
        summary="the last projection runs in float32, in the engines and in the trainer, from one weight sync on",
        why="bfloat16 logits round away differences that the ratio is made of",
    ),
)

BY_ID: Final[dict[str, Fix]] = {fix.id: fix for fix in FIXES}


class UnknownFixError(ValueError):
    """A fix id or value outside the catalogue."""


def check(fix_id: str, value: str) -> Fix:
    """Return the fix, or raise UnknownFixError naming what is allowed."""
    fix = BY_ID.get(fix_id)
    if fix is None:
        raise UnknownFixError(f"unknown fix '{fix_id}'; allowed: {', '.join(BY_ID)}")
    if value not in fix.values:
        raise UnknownFixError(f"fix {fix_id}: '{value}' is not a value; allowed: {', '.join(fix.values)}")
    return fix
