"""What each backend fix is worth: measured live in one run of the real trainer on the real vLLM, by the run itself.

The figures that the console is built on (raw against processed logprobs, a stale prefix cache after weight updates, a
bfloat16 against a float32 head) are reproduced by switching the fixes of one run one after the other. It is the run of
`test_run_trainer`, which goes on from here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from driftline.frames import Effect, Measure, Span, Tokens, floats, ints
from tests.e2e.trained_run import TrainedRun

STEPS = 10
"""Steps to measure on either side: from so many on the step is the unit, and a cached prefix has time to grow stale."""

LONG = 20
"""Steps on either side where a few requests have most of the mismatch: as many as an effect takes."""

SETTLED = 5
"""The last of them, sampled under the new state alone: nothing is asked for ahead of the step that needs it."""

TIMES = 8.0


@dataclass(frozen=True)
class Fact:
    """What the run measured of one change, and mean |d| afterwards over sequences sampled under one version only."""

    mismatch: Measure
    fresh: float


class Facts:
    """Switches fixes of a live run one after the other and waits until each effect is measured."""

    def __init__(self, live: TrainedRun) -> None:
        self._live = live
        self._trainer = live.trainer
        live.wait(lambda: len(live.steps()) >= STEPS, self._trainer, limit=480)

    def switch(self, fix: str, value: str, steps: int = STEPS) -> Fact:
        ack = self._live.command("fix.set", fix=fix, value=value)
        assert ack.state == "applied", ack.detail
        name = next(
            e for e in reversed(self._live.frames(Effect)) if fix in {changed for changed, _, _ in e.changes}
        ).id
        self._live.wait(lambda: self._newest(name).steps_after >= steps, self._trainer, limit=480)
        effect = self._newest(name)
        assert effect.changes == ((fix, effect.changes[0][1], value),), effect.detail
        assert effect.steps_before >= STEPS
        measure = effect.measures[0]
        assert measure.metric == "mismatch/abs_diff_mean"
        fact = Fact(measure, self._fresh())
        print(f"{fix} {value}: {measure.before:.2e} -> {measure.after:.2e}, fresh {fact.fresh:.2e}; {measure}")
        return fact

    def _newest(self, name: str) -> Effect:
        return [effect for effect in self._live.frames(Effect) if effect.id == name][-1]

    def _fresh(self) -> float:
        """Mean |d| of the last steps, over sequences that no weight update has met: in flight they had no KV of it."""
        last = sorted(self._live.frames(Tokens), key=lambda tokens: tokens.step)[-SETTLED:]
        sizes = []
        for tokens in last:
            d = np.abs(floats(tokens.trainer) - floats(tokens.rollout))
            versions, rows = ints(tokens.token_version), ints(tokens.seq)
            sizes += [d[rows == row] for row in np.unique(rows) if np.ptp(versions[rows == row]) == 0]
        return float(np.concatenate(sizes).mean())


def changed(effect: Effect) -> set[str]:
    return {fix for fix, _, _ in effect.changes}


@pytest.mark.engine
@pytest.mark.alone
@pytest.mark.timeout(900)
def test_the_table_of_facts_in_one_run(live: TrainedRun) -> None:
    facts = Facts(live)
    raw = facts.switch("processed-logprobs", "off").mismatch
    assert raw.after > TIMES * raw.before
    assert raw.low > 0
    processed = facts.switch("processed-logprobs", "on").mismatch
    assert processed.before > TIMES * processed.after
    assert processed.high < 0

    # The engine's head alone, with everything else on: off and on again.
    rough = facts.switch("fp32-lm-head", "off").mismatch
    assert rough.low > 0, "a bfloat16 head is measurably further from the trainer's float32 one"
    fine = facts.switch("fp32-lm-head", "on").mismatch
    assert fine.high < 0

    # From here on an update neither waits for requests in flight nor clears a cache.
    # Requests in flight over updates have most of the mismatch, and they are few: twenty steps a side.
    skipped = facts.switch("inflight-keep", "on", LONG)
    stale = facts.switch("prefix-cache-off", "off", LONG)
    assert stale.fresh > TIMES * skipped.fresh, "new requests read blocks of older weights"
    assert stale.mismatch.low > 0
    gone = facts.switch("prefix-cache-off", "on", LONG)
    assert stale.fresh > TIMES * gone.fresh
    # Requests in flight go on with what they have: the means fall, but a few of those requests bend the trend of twenty
    # steps, and the interval of the change may reach beyond zero (measured: -.059 to +.016).
    assert gone.mismatch.before > 2 * gone.mismatch.after
    assert gone.mismatch.change < 0

    # The other way out: a cache that is read, but emptied at every weight update.
    again = facts.switch("prefix-cache-off", "off")
    assert again.fresh > TIMES * gone.fresh
    emptied = facts.switch("inflight-keep", "wait").mismatch
    assert emptied.before > TIMES * emptied.after
    assert emptied.high < 0
    resets = [span.result for span in live.frames(Span) if span.phase == "reset"]
    assert {"kept", "freed"} <= set(resets)
    assert resets[-1] == "freed"
