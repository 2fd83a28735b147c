"""The passive instruments: what each asks, and the outcomes that it can have. Order is that of reports."""

from __future__ import annotations

from typing import Final

from console.diagnosis.model import Instrument

PASSIVE: Final = (
    Instrument("size", "how large is mean |d| against this stack's floor", ("floor", "above", "far", "beyond")),
    Instrument("relative", "how large is |d| for each uncertainty", ("slight", "some", "plain", "far", "few")),
    Instrument(
        "onset",
        "since when",
        ("nothing", "step 0", "update", "not seen"),
    ),
    Instrument("growth", "does it grow with updates", ("flat", "grows", "falls", "short")),
    Instrument("engine", "does one engine differ from the others", ("alike", "one", "single")),
    Instrument("zeros", "where is the engine's logprob exactly 0.0", ("none", "last", "certain", "anywhere")),
    Instrument("sign", "is d of one sign", ("engine higher", "engine lower", "mostly higher", "mostly lower", "both")),
    Instrument(
        "sampler",
        "from whose distribution were the tokens drawn",
        ("engine's", "trainer's", "neither's", "either's"),
    ),
    Instrument(
        "context",
        "after the same tokens, does d depend on the token drawn",
        ("position only", "run's temperature", "another temperature", "some ids", "token", "few"),
    ),
    Instrument(
        "repeatable",
        "does a side give the same token after the same tokens the same logprob",
        ("both do", "trainer differs", "engine differs", "neither", "few"),
    ),
    Instrument("position", "at which positions", ("flat", "first", "early", "late", "below")),
    Instrument("seam", "only behind a change of weights within a sequence", ("after only", "no", "none")),
    Instrument("repeats", "are ids that occurred before given less", ("lowered", "no", "few")),
    Instrument("shift", "do the trainer's logprobs fit the neighbouring token", ("in place", "shifted", "few")),
    Instrument("ids", "does d depend on the token id", ("by id", "some", "no", "few")),
    Instrument("tails", "how far are the largest |d| from the usual", ("usual", "heavy", "few far")),
    Instrument("bound", "is there a largest |d|", ("sharp", "bounded", "no")),
    Instrument("lag", "does |d| follow the lag of a token's weights", ("with lag", "no", "no lag")),
    Instrument("surprise", "does d follow the engine's own logprob", ("flattened", "sharpened", "no", "few")),
    Instrument("grid", "whose logits lie on the grid of bfloat16", ("neither", "engine", "trainer", "both", "few")),
    Instrument(
        "updates",
        "how large is mean |d| against what one update of the weights does",
        ("slight", "part", "like one", "beyond", "not recorded"),
    ),
    Instrument("staleness", "how far are old weights from the newest", ("low", "high", "not recorded")),
)

_FIX: Final = ("repaired", "not repaired", "not reported")
STATE: Final = (
    Instrument("processed-logprobs", "do the engines report processed logprobs", _FIX),
    Instrument("prefix-cache-off", "do requests read the prefix cache", _FIX),
    Instrument("inflight-keep", "do requests in flight end before an update", ("waits", "kept", "not reported")),
    Instrument("fp32-lm-head", "does the last projection run in float32", _FIX),
    Instrument("temperature", "is the run's temperature 1", ("one", "another", "not reported")),
    Instrument("versions", "do the engines report the newest weights", ("newest", "behind", "not reported")),
    Instrument("digests", "do the engines' weights have one digest", ("alike", "differ", "not reported")),
    Instrument("resets", "did the newest sync empty the prefix caches", ("freed", "not freed", "not reported")),
)
"""What a run reports of itself; read from `console.diagnosis.facts.Facts`, not from tokens."""

BY_NAME: Final = {one.name: one for one in (*PASSIVE, *STATE)}
