"""How much of the mismatch each layer accounts for, from one token scored in several ways. Pure.

Every token of a probe has a chain of pairs (engine's side, trainer's side), each with one layer made right on top of
those before, in the order in which layers are repaired; the last has none left but arithmetic. The mean |difference|
falls from link to link, and what falls between two of them is the share of the layer between. So the shares sum to the
whole exactly, each is what repairing that layer would change once those before it are, and one that is negative says
that its error has hidden a part of another's. Intervals are a percentile bootstrap over sequences (Efron 1979), whose
tokens are alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

LAYERS: Final = ("semantics", "inference path", "weight update", "numerics", "staleness", "data")
RESAMPLES: Final = 400
LOST: Final = 0.25
"""What scoring the same text again does not show is a fault of the data from this part of the difference on: less comes
of the one update that may lie between the sampling of a text and the round."""
NEARER: Final = 0.5
"""Scores that have less than this part of one difference as another are nearer to the first."""
LOW, HIGH = 2.5, 97.5


@dataclass(frozen=True)
class Chain:
    """Tokens of one engine, all arrays [n], logprobs in nats.

    `sequence` numbers the response that a token is of; `straddles` is true where that was sampled under more than one
    version. The engine's side: `recorded` as it came with the rollout; `usual` scored again in the way of a rollout;
    `plain` with nothing but the temperature, after it; `uncached` the same without a cached prefix. The trainer's side:
    `reported` as its frames have it, `own` as it trains, under the token's own version; `trained` the same under the
    version that the engine is to hold; `steady` that with dropout off; `even` that at the engine's temperature; `held`
    that under the weights that the engine really holds.
    """

    sequence: npt.NDArray[np.int64]
    straddles: npt.NDArray[np.bool_]
    recorded: Values
    usual: Values
    plain: Values
    uncached: Values
    reported: Values
    own: Values
    trained: Values
    steady: Values
    even: Values
    held: Values

    def rows(self, keep: npt.NDArray[np.bool_]) -> Chain:
        """Some of the tokens."""
        return Chain(**{name: getattr(self, name)[keep] for name in self.__dataclass_fields__})

    @property
    def finite(self) -> npt.NDArray[np.bool_]:
        """Where every side has a number."""
        sides = [getattr(self, name) for name in self.__dataclass_fields__ if name not in ("sequence", "straddles")]
        return np.asarray(np.isfinite(np.stack(sides)).all(axis=0))


@dataclass(frozen=True)
class Shares:
    """`total` is the mean |recorded - reported| over `tokens`; `nats` of each layer sum to it. `low`, `high`: 95 %."""

    total: float
    nats: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]
    tokens: int


def shares(chains: Sequence[Chain], rng: np.random.Generator) -> Shares:
    """The shares over the tokens of all engines. Raises ValueError where there is no token."""
    columns, owners = [], []
    begins = 0
    for chain in chains:
        kept = chain.rows(chain.finite)
        if not kept.sequence.size:
            continue
        columns.append(_columns(kept))
        _, numbers = np.unique(kept.sequence, return_inverse=True)
        owners.append(numbers + begins)
        begins = int(owners[-1].max()) + 1
    if not columns:
        raise ValueError("no token of the probe was scored on both sides")
    column, owner = np.concatenate(columns), np.concatenate(owners)
    sums = np.zeros((begins, column.shape[1]))
    np.add.at(sums, owner, column)
    counts = np.bincount(owner, minlength=begins).astype(np.float64)
    drawn = rng.multinomial(begins, np.full(begins, 1 / begins), RESAMPLES).astype(np.float64)
    means = sums.sum(axis=0) / counts.sum()
    gone = bool(means[_LOST] > LOST * means[_FRESH])
    whole = _of_layers(means[None], gone)[0]
    spread = _of_layers((drawn @ sums) / (drawn @ counts)[:, None], gone)
    low, high = np.percentile(spread, [LOW, HIGH], axis=0)
    return Shares(
        float(whole.sum()),
        dict(zip(LAYERS, whole.tolist(), strict=True)),
        dict(zip(LAYERS, low.tolist(), strict=True)),
        dict(zip(LAYERS, high.tolist(), strict=True)),
        int(column.shape[0]),
    )


def reads_cache(usual: Values, plain: Values, uncached: Values) -> bool:
    """Whether rollouts read cached prefixes, by the scores themselves (see `Chain`).

    They may be sampled past the cache (`skip_reading_prefix_cache`), and then what the cache does to `plain` is no part
    of their difference: they are nearer to what was scored without it.
    """
    finite = np.isfinite(usual) & np.isfinite(plain) & np.isfinite(uncached)
    with_it, without = (float(np.abs(usual - one)[finite].sum()) for one in (plain, uncached))
    return without >= NEARER * with_it


_STALE, _FRESH, _LOST, _SEAM, _SEMANTICS, _PATH, _UPDATE, _NUMERICS = range(8)


def _columns(chain: Chain) -> Values:
    """What each link takes off |d| of each token, [n, 8]; `_FRESH` is |d| under a token's own weights itself."""
    whole = np.abs(chain.recorded - chain.reported)
    fresh = np.abs(chain.recorded - chain.own)
    again = np.abs(chain.usual - chain.trained)
    steady = np.abs(chain.usual - chain.steady)
    plain = np.abs(chain.plain - chain.even)
    uncached = np.abs(chain.uncached - chain.even)
    held = np.abs(chain.uncached - chain.held)
    lost = fresh - again
    parts = (
        whole - fresh, fresh, lost * ~chain.straddles, lost * chain.straddles,
        steady - plain, plain - uncached, uncached - held, again - steady + held,
    )  # fmt: skip
    return np.stack(parts, axis=1)


def _of_layers(means: Values, gone: bool) -> Values:
    """Shares [rows, LAYERS] from means of the columns [rows, 8].

    What scoring the same text again does not show: of a response that lived through an update the weights have changed
    under its keys and values, which is the inference path's; of any other one the text, or the number, is not what was
    sampled (`gone`), or the fault has grown or shrunk by the update in between: then what the links show stands for
    what was recorded, in proportion.
    """
    data = means[:, _LOST] if gone else np.zeros(len(means))
    links = means[:, _SEMANTICS:]
    shown = links.sum(axis=1)
    scale = np.divide(shown + means[:, _LOST] - data, shown, out=np.ones_like(shown), where=shown > 1e-9)
    left = means[:, _FRESH] - means[:, _SEAM] - data - scale * shown
    semantics, path, update, numerics = (links * scale[:, None]).T
    return np.stack([semantics, path + means[:, _SEAM], update, numerics + left, means[:, _STALE], data], axis=1)


def processed(raw: Values, temperature: float, rest: Values) -> Values:
    """Logprobs at a temperature from raw ones. float64 [n].

    `raw` [n, 1 + C] are those of temperature 1, of the token and then of C candidates, each id once among these; `rest`
    [n] is what lies outside of the candidates over what lies within, at the temperature, which the trainer says
    (0: the candidates are the whole vocabulary). softmax(z / T) of logits z is softmax(log p / T) of p = softmax(z).
    """
    scaled = raw / temperature
    top = scaled[:, 1:].max(axis=1)
    within = top + np.log(np.exp(scaled[:, 1:] - top[:, None]).sum(axis=1))
    return np.asarray(scaled[:, 0] - within - np.log1p(rest))
