"""One active round: recorded sequences scored again by their engines and by the trainer, each in several ways.

It is made between two parts of a step, where the engines still hold the version that the step's tokens are of: nothing
is trained, sent, switched or sampled for it. What it costs is said before and measured after.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from engine import EngineError, EnginePool
from engine.types import HeldWeights, ProbeRequest, ProbeScores
from trainer.errors import RefusedError
from trainer.learn.batch import Batch, Sample
from trainer.learn.held import Held, compare
from trainer.learn.versions import Scorer, Scores, Weights, WeightStore
from trainer.measure import attribution
from trainer.measure.attribution import LAYERS, Chain
from trainer.measure.sync_spans import Data

TOKENS: Final = 96
"""Tokens that are scored of each engine's sequences, unless otherwise asked for."""
MOST_TOKENS: Final = 2048
FEW: Final = 12
"""Tokens for what is the same for every token: the mode of the logprobs, another shape of the batch."""
CANDIDATES: Final = 127
"""vLLM takes 128 ids a request, one of which is the token's own (0.32: MAX_LOGPROB_TOKEN_IDS)."""
TIMEOUT_S: Final = 30.0
REQUEST_S: Final = 0.006
"""What a request of one token took on two CPU cores, for the estimate before the first round has been measured."""
SAME: Final = 1e-6
UNSURE: Final = -0.01
"""Nats. A token that is likelier says nothing of temperatures: it is certain at every one."""


@dataclass(frozen=True)
class Probed:
    """The sequences that a round may take: a batch with the trainer's scores, `float32_head` is the head's."""

    samples: Sequence[Sample]
    batch: Batch
    scores: Scores
    float32_head: bool


@dataclass(frozen=True)
class _Part:
    """An engine's own sequences of the probe: rows of the batch, and what is scored of each."""

    engine: str
    rows: torch.Tensor
    positions: list[np.ndarray]
    held: Held
    weights: Weights


@dataclass(frozen=True)
class _Mode:
    """Whether an engine's logprobs are those before temperature, and what finding that out has cost."""

    raw: bool = False
    seconds: float = 0.0
    requests: int = 0


class Prober:
    """`temperature` is that of the rollouts, by the run's configuration."""

    def __init__(self, pool: EnginePool, scorer: Scorer, store: WeightStore, temperature: float) -> None:
        self._pool, self._scorer, self._store, self._temperature = pool, scorer, store, temperature
        self._request_s = REQUEST_S

    def estimate(self, tokens: int) -> str:
        """What a round over so many tokens of each engine will cost, as a clause."""
        requests = 3 * tokens + 3 * FEW
        return (
            f"{requests} requests of one token to each engine, about {requests * self._request_s:.1f} s of each, and "
            "7 forward passes of the trainer over these tokens; the step waits for it, generation goes on"
        )

    def run(self, probed: Probed, tokens: int, check: Callable[[], None] = lambda: None) -> Data:
        """One round. Raises EngineError where no engine answers, RefusedError where there is nothing to score, and
        what `check` does, which is called between the passes."""
        began = time.monotonic()
        parts = self._parts(probed, tokens, self._pool.held_weights(TIMEOUT_S))
        check()
        mode = self._mode(probed, parts)
        forward = {}
        for part in parts:
            check()
            forward[part.engine] = self._forward(probed, part, mode[part.engine].raw)
        check()
        scored = self._pool.probe(
            {part.engine: self._requests(probed, part, forward[part.engine]) for part in parts}, TIMEOUT_S
        )
        data: Data = {}
        chains, failed = [], []
        for part in parts:
            answer = scored[part.engine]
            if isinstance(answer, EngineError):
                failed.append(str(answer))
                continue
            chain, figures = self._figures(probed, part, forward[part.engine], answer)
            chains.append(chain)
            data |= {f"{part.engine}.{name}": value for name, value in figures.items()}
            seconds = mode[part.engine].seconds + sum(one.seconds for one in answer)
            requests = mode[part.engine].requests + sum(one.requests for one in answer)
            data |= {f"{part.engine}.raw": float(mode[part.engine].raw)}
            data |= {f"{part.engine}.seconds": seconds, f"{part.engine}.requests": requests}
            self._request_s = seconds / max(1, requests)
        if not chains:
            raise EngineError(f"no engine could be probed: {'; '.join(failed)}")
        data |= self._trainer(probed, parts, forward)
        data |= _shares(chains)
        return data | {"seconds": time.monotonic() - began, "note": "; ".join(failed)}

    # -- what is scored -----------------------------------------------------------------------------------------------

    def _parts(self, probed: Probed, tokens: int, held: Mapping[str, HeldWeights | EngineError]) -> list[_Part]:
        parts, reasons = [], []
        for engine, answer in held.items():
            if isinstance(answer, EngineError):
                reasons.append(str(answer))
                continue
            found, weights = compare(answer.entries, answer.version, self._store), self._store.get(answer.version)
            if found is None or weights is None:
                reasons.append(f"{engine}: version {answer.version} is not kept any more (trainer.keep_versions)")
                continue
            rows, positions = _rows(probed, engine, answer.version, tokens)
            if not rows:
                reasons.append(f"{engine}: no sequence of this step is its own")
                continue
            parts.append(_Part(engine, torch.tensor(rows), positions, found, weights))
        if not parts:
            raise RefusedError(f"nothing to probe: {'; '.join(reasons) or 'no engine serves'}")
        return parts

    def _mode(self, probed: Probed, parts: Sequence[_Part]) -> dict[str, _Mode]:
        """Whether each engine's logprobs are those before temperature: it then makes no difference to them."""
        found = {part.engine: _Mode() for part in parts}
        if abs(self._temperature - 1.0) < 1e-3:
            return found
        few = {part.engine: _few(probed, part)[0] for part in parts}
        asked = {
            part.engine: [
                _request(probed, few[part.engine], temperature=temperature) for temperature in (self._temperature, 1.0)
            ]
            for part in parts
        }
        for engine, answer in self._pool.probe(asked, TIMEOUT_S).items():
            if isinstance(answer, EngineError):
                continue
            warm, one = (_flat(scores)[:, 0] for scores in answer)
            unsure = np.isfinite(warm) & (warm < UNSURE)
            raw = bool(unsure.any() and np.abs(warm - one)[unsure].max() < SAME)
            found[engine] = _Mode(raw, sum(part.seconds for part in answer), sum(part.requests for part in answer))
        return found

    def _requests(self, probed: Probed, part: _Part, forward: _Forward) -> list[ProbeRequest]:
        few, _ = _few(probed, part)
        return [
            _request(probed, part, usual=True),
            _request(probed, part, candidates=forward.candidates),
            _request(probed, part, cached=False, candidates=forward.candidates),
            _request(probed, few, cached=False, at_once=1),
        ]

    # -- the trainer's side -------------------------------------------------------------------------------------------

    def _forward(self, probed: Probed, part: _Part, raw: bool) -> _Forward:
        scorer, batch, head = self._scorer, probed.batch.rows(part.rows), probed.float32_head
        temperature, weights = self._temperature, part.weights
        trained = scorer.logprobs_under(weights, batch, float32_head=head)
        own = torch.full_like(trained, float("nan"))
        for version in batch.versions[batch.mask].unique().tolist():
            kept, of_it = self._store.get(version), batch.mask & (batch.versions == version)
            if kept is not None:
                found = trained if kept is weights else scorer.logprobs_under(kept, batch, float32_head=head)
                own[of_it] = found[of_it]
        single = [batch.rows(slice(row, row + 1)) for row in range(batch.size)]
        again = torch.cat([scorer.logprobs_under(weights, one, float32_head=head) for one in single])
        steady = trained
        if scorer.dropout():
            steady = scorer.even(weights, batch, float32_head=head, temperature=scorer.temperature)
        even = scorer.even(weights, batch, float32_head=head, temperature=temperature)
        real, held = part.held.weights(weights, self._store), even
        if part.held.differing:
            held = scorer.even(real, batch, float32_head=head, temperature=temperature)
        other = scorer.even(real, batch, float32_head=not head, temperature=temperature)
        candidates: list[np.ndarray] = []
        rest = torch.zeros_like(even)
        if raw:
            ids, rest = scorer.likeliest(weights, batch, CANDIDATES, float32_head=head, temperature=temperature)
            candidates = [ids[row].numpy()[at].astype(np.int32) for row, at in enumerate(part.positions)]
        return _Forward(
            own=_at(part, own),
            trained=_at(part, trained),
            again=_at(part, again),
            steady=_at(part, steady),
            even=_at(part, even),
            other=_at(part, other),
            held=_at(part, held),
            rest=_at(part, rest),
            candidates=candidates,
        )

    def _trainer(self, probed: Probed, parts: Sequence[_Part], forward: Mapping[str, _Forward]) -> Data:
        every = [forward[part.engine] for part in parts]
        self_diff = np.concatenate([np.abs(one.trained - one.again) for one in every])
        uneven = np.concatenate([one.trained - one.even for one in every])
        return {
            "trainer.self": float(self_diff.mean()),
            "trainer.self_max": float(self_diff.max()),
            "trainer.dropout": self._scorer.dropout(),
            "trainer.uneven": float(np.abs(uneven).mean()),
            "trainer.temperature": self._scorer.temperature,
            "trainer.float32_head": probed.float32_head,
            "temperature": self._temperature,
        }

    # -- figures ------------------------------------------------------------------------------------------------------

    def _figures(
        self, probed: Probed, part: _Part, forward: _Forward, answer: Sequence[ProbeScores]
    ) -> tuple[Chain, Data]:
        usual, plain, uncached, alone = (_flat(scores) for scores in answer)
        if forward.candidates:
            plain, uncached = (
                attribution.processed(one.astype(np.float64), self._temperature, forward.rest)
                for one in (plain, uncached)
            )
        else:
            plain, uncached = plain[:, 0], uncached[:, 0]
        plain = plain if attribution.reads_cache(usual[:, 0], plain, uncached) else uncached
        batch, scores = probed.batch.rows(part.rows), probed.scores
        counts = [len(at) for at in part.positions]
        versions = [batch.versions[row][batch.mask[row]] for row in range(batch.size)]
        mixed = np.array([len(found.unique()) > 1 for found in versions])
        chain = Chain(
            sequence=np.repeat(part.rows.numpy(), counts),
            straddles=np.repeat(mixed, counts),
            recorded=_at(part, batch.rollout),
            usual=usual[:, 0].astype(np.float64),
            plain=plain.astype(np.float64),
            uncached=uncached.astype(np.float64),
            reported=_at(part, scores.own[part.rows]),
            own=forward.own,
            trained=forward.trained,
            steady=forward.steady,
            even=forward.even,
            # Where it cannot be said what the engine holds, all that is left is put down to that.
            held=forward.held if part.held.known else uncached.astype(np.float64),
        )
        raw_uncached = _flat(answer[2])[:, 0]
        _, picked = _few(probed, part)
        own = np.abs(alone[:, 0].astype(np.float64) - raw_uncached[picked])
        # Of what an update has straddled, and of a placeholder, no score of the same text says anything.
        plainly = ~chain.straddles & (chain.recorded != 0.0)
        return chain, {
            "tokens": int(chain.finite.sum()),
            "recorded": _mean((chain.recorded - chain.own)[plainly]),
            "again": _mean((chain.recorded - chain.usual)[plainly]),
            "seam": _lost(chain, chain.straddles),
            "stale": _mean(chain.recorded - _at(part, scores.now[part.rows])) - _mean(chain.recorded - chain.own),
            "usual": _mean((chain.usual - chain.trained)[plainly]),
            "sampled": _mean(chain.usual - chain.plain),
            "offset": _signed(chain.usual - chain.plain),
            # -inf where a mask leaves a token out that it had let through under the weights before.
            "lowest": float(np.min((chain.usual - chain.plain)[chain.finite], initial=0.0)),
            "plain": _mean(chain.plain - chain.even),
            "uncached": _mean(chain.uncached - chain.even),
            "cache": _mean(chain.plain - chain.uncached),
            "held": _mean(chain.uncached - chain.held),
            "other_head": _mean(chain.uncached - forward.other),
            "self": _mean(own),
            "self_max": float(np.nanmax(own, initial=0.0)),
            "version": part.held.version,
            "differing": len(part.held.differing),
            "compared": part.held.compared,
            "sampling": answer[0].sampling,
            "tensors": part.held.text,
            "kind": part.held.kind,
        }


@dataclass(frozen=True)
class _Forward:
    """The trainer's logprobs of an engine's tokens, each float64 [tokens]: under their own versions, as it trains, the

    same again a row at a time, without dropout, even, with the other head, under the weights that are held; the odds of
    what no candidate is, and the candidates.
    """

    own: np.ndarray
    trained: np.ndarray
    again: np.ndarray
    steady: np.ndarray
    even: np.ndarray
    other: np.ndarray
    held: np.ndarray
    rest: np.ndarray
    candidates: list[np.ndarray]


def tokens_of(text: str) -> int:
    """The number of tokens of a command's argument, "" for the usual one. Raises RefusedError."""
    if not text:
        return TOKENS
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_TOKENS:
        raise RefusedError(f"'{text[:20]}' is not a number of tokens; allowed: 1 to {MOST_TOKENS}")
    return int(text)


def _rows(probed: Probed, engine: str, version: int, tokens: int) -> tuple[list[int], list[np.ndarray]]:
    """Rows of this engine with at most so many tokens; those of the version that it is to hold come first."""
    batch, scored = probed.batch, probed.scores.scored
    mine = [row for row, sample in enumerate(probed.samples) if sample.engine == engine and bool(scored[row].any())]
    mine.sort(key=lambda row: not bool((batch.versions[row][scored[row]] == version).all()))
    rows, positions, left = [], [], tokens
    for row in mine:
        places = scored[row].nonzero()[:, 0].numpy().astype(np.int32)[:left]
        if not len(places):
            break
        rows.append(row)
        positions.append(places)
        left -= len(places)
    return rows, positions


def _few(probed: Probed, part: _Part) -> tuple[_Part, np.ndarray]:
    """The FEW least likely tokens, which show most, and their places among those of the part."""
    chosen = np.sort(np.argsort(_at(part, probed.batch.rollout[part.rows]), kind="stable")[:FEW])
    begins = np.cumsum([0, *(len(places) for places in part.positions)])
    rows, positions = [], []
    for at, (row, places) in enumerate(zip(part.rows.tolist(), part.positions, strict=True)):
        here = chosen[(chosen >= begins[at]) & (chosen < begins[at + 1])] - begins[at]
        if here.size:
            rows.append(row)
            positions.append(places[here])
    return _Part(part.engine, torch.tensor(rows), positions, part.held, part.weights), chosen


def _request(
    probed: Probed,
    part: _Part,
    *,
    usual: bool = False,
    temperature: float = 0.0,
    cached: bool = True,
    candidates: Sequence[np.ndarray] = (),
    at_once: int = 32,
) -> ProbeRequest:
    samples = [probed.samples[row] for row in part.rows.tolist()]
    return ProbeRequest(
        part.held.version, [list(one.prompt) for one in samples],
        [np.array(one.response, dtype=np.int32) for one in samples], part.positions,
        usual, temperature, cached, list(candidates), at_once,
    )  # fmt: skip


def _flat(scores: ProbeScores) -> np.ndarray:
    """All rows, float64 [tokens, 1 + C]."""
    return np.concatenate(scores.logprobs).astype(np.float64)


def _at(part: _Part, values: torch.Tensor) -> np.ndarray:
    """Of [rows, R] what is scored, float64 [tokens]."""
    found = values.numpy().astype(np.float64)
    return np.concatenate([found[row][places] for row, places in enumerate(part.positions)])


def _mean(values: np.ndarray) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.mean()) if finite.size else float("nan")


def _lost(chain: Chain, rows: np.ndarray) -> float:
    """How much of |d| does not show when these tokens are scored again, NaN without any."""
    part = chain.rows(rows & chain.finite)
    return _mean(part.recorded - part.own) - _mean(part.usual - part.trained)


def _signed(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _shares(chains: Sequence[Chain]) -> Data:
    try:
        found = attribution.shares(chains, np.random.default_rng(0))
    except ValueError as error:
        raise EngineError(str(error)) from error
    data: Data = {"total": found.total, "tokens": found.tokens}
    for layer in LAYERS:
        data |= {
            f"share.{layer}": found.nats[layer],
            f"share.{layer}.low": found.low[layer],
            f"share.{layer}.high": found.high[layer],
        }
    return data
