"""From a sampled group to the tokens that another engine is asked for, and back to differences. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.types import IN_BETWEEN, Group, ScoreRequest, Scores, Sequence


def tokens(group: Group, positions: int) -> int:
    """How many tokens of a group are to be scored where nothing is in the way, at most `positions` of a sequence."""
    return sum(min(len(sequence.ids), positions) for sequence in group.sequences)


def request(group: Group, version: int, positions: int, rng: np.random.Generator) -> ScoreRequest | None:
    """What to ask of an engine that holds `version`; None where no sequence was sampled under it from end to end.

    A sequence that straddles a weight update goes on over the keys and values of older weights, which no other engine
    has: it is not compared. Of longer sequences `positions` tokens are drawn without regard to what they are.
    """
    rows = [sequence for sequence in group.sequences if _comparable(sequence, version)]
    if not rows:
        return None
    places = [
        np.arange(len(row.ids)) if len(row.ids) <= positions else rng.choice(len(row.ids), positions, replace=False)
        for row in rows
    ]
    ascending = [np.sort(place).astype(np.int32) for place in places]
    return ScoreRequest(group.group, version, list(group.prompt_ids), [row.ids for row in rows], ascending)


def differences(group: Group, asked: ScoreRequest, scores: Scores) -> npt.NDArray[np.float64]:
    """|sampler's logprob - scorer's| of every token that was scored, in nats."""
    rows = [sequence for sequence in group.sequences if _comparable(sequence, asked.version)]
    found = [
        row.logprobs[places].astype(np.float64) - scored
        for row, places, scored in zip(rows, asked.positions, scores.logprobs, strict=True)
    ]
    size = np.abs(np.concatenate(found))
    return np.asarray(size[np.isfinite(size)])


def _comparable(sequence: Sequence, version: int) -> bool:
    one_state = (sequence.versions == version) & (sequence.epochs != IN_BETWEEN)
    return len(sequence.ids) > 0 and bool(one_state.all())
