"""The catalogue of causes. Rows 1 to 40 are those of docs/diagnosis.md; the rest split a row or add one.

`MODELLED` are the causes that the passive inference weighs: those with calibrated likelihoods. All others are
entries for people and for active instruments, and say what looks the same.
"""

from __future__ import annotations

from typing import Final

from console.diagnosis.model import Action, Cause, Layer, Onset, Prediction
from console.diagnosis.rest import REST

_SYNC: Final = Action("sync", "send the weights again to every engine")


def _cause(
    number: int,
    name: str,
    title: str,
    layer: Layer,
    onset: Onset,
    predicts: dict[str, str],
    refuted_by: str,
    action: Action,
    source: str,
    alike: tuple[str, ...] = (),
) -> Cause:
    made = tuple(Prediction(instrument, text) for instrument, text in predicts.items())
    return Cause(name, title, layer, onset, made, refuted_by, action, source, number, alike=alike)


MODELLED: Final[tuple[Cause, ...]] = (
    _cause(
        1, "raw-logprobs", "the engine reports logprobs before temperature and penalties", "semantics", "step 0",
        {
            "context": "after the same tokens, the engine's logprobs are those of the trainer times the temperature",
            "sampler": "tokens are drawn from the trainer's distribution, not from what the engine reports",
            "sign": "both: the engine is lower on likely and higher on rare tokens",
            "position": "flat but for entropy",
        },
        "a temperature of 1, or a slope within contexts that is not the run's temperature",
        Action("fix", "switch processed logprobs on", fix="processed-logprobs", value="on"),
        "TRL 4159, 4873; vime 64, 69; prime-rl 697",
    ),
    _cause(
        2, "top-p", "the engine samples with top-p and reports the renormalised logprobs", "semantics", "step 0",
        {
            "sign": "the engine is never lower",
            "context": "d = -log(kept mass): the same for every token drawn at a position",
            "bound": "d is at most -log(top_p)",
            "zeros": "exactly 0.0 where one token has top_p of the mass",
        },
        "one token that the engine gives clearly less than the trainer",
        Action("setting", "set top_p to 1 in the sampling parameters, or renormalise in the trainer", setting="top_p"),
        "TRL 6789, 7269; vllm 42259; ms-swift 8442",
        ("top-k", "min-tokens"),
    ),
    _cause(
        2, "top-k", "the engine samples with top-k (or min-p) and reports the renormalised logprobs", "semantics",
        "step 0",
        {
            "sign": "the engine is never lower",
            "context": "d = -log(kept mass): the same for every token drawn at a position",
            "bound": "none: d is largest where the entropy is high",
        },
        "one token that the engine gives clearly less than the trainer",
        Action("setting", "set top_k to -1 and min_p to 0, or renormalise in the trainer", setting="top_k"),
        "TRL 6789; NeMo 3497; vime 6",
        ("top-p", "min-tokens", "generation-config", "padded-vocabulary"),
    ),
    _cause(
        4, "min-tokens", "the engine masks the end of sequence below min_tokens", "semantics", "step 0",
        {
            "sign": "the engine is never lower",
            "position": "only positions below min_tokens",
            "context": "d = -log(1 - p_end): the same for every token drawn at a position",
        },
        "a difference at positions behind every minimum length",
        Action("setting", "use ignore_eos in its place, or apply the same mask in the trainer", setting="min_tokens"),
        "verl's vLLM patch; vLLM documentation of SamplingParams",
    ),
    _cause(
        4, "repetition-penalty", "the engine applies a repetition, presence or frequency penalty", "semantics",
        "step 0", {
            "repeats": "ids that occurred before are lower in the engine, all others slightly higher",
            "context": "depends on the token drawn: equal for ids without a penalty, other for those with one",
            "sampler": "the engine's",
        },
        "repeated and new ids that differ alike",
        Action("setting", "set the penalties to none in the sampling parameters", setting="repetition_penalty"),
        "vLLM documentation of SamplingParams; vllm 27878",
    ),
    _cause(
        5, "stale-prefix-cache", "requests read prefix blocks that older weights computed", "inference path", "update",
        {
            "position": "strongest right behind the prompt, decays",
            "growth": "grows with the number of updates",
            "repeatable": "the engine differs from itself where only some requests hit the cache",
            "seam": "no: sequences without a change of weights too",
        },
        "a mismatch before the first update, or one that a cache reset does not end",
        Action("fix", "stop reading cached prefix blocks", fix="prefix-cache-off", value="on"),
        "NeMo 4018; prime-rl 1650, 2270",
        ("reset-no-op", "layer-not-loaded"),
    ),
    _cause(
        6, "in-flight-kv", "requests in flight go on over keys and values of older weights", "inference path", "update",
        {"seam": "only tokens behind a change of weights within their sequence"},
        "a mismatch in sequences of a single version",
        Action("fix", "let requests in flight finish before an update", fix="inflight-keep", value="wait"),
        "PipelineRL 121; the article",
    ),
    _cause(
        8, "layer-not-loaded", "a part of the weights was not loaded at a sync", "weight update", "update",
        {
            "growth": "grows with the updates since",
            "engine": "all alike, or one where only its load failed",
            "sampler": "the engine's",
            "ids": "not by id: what is behind the layer mixes",
        },
        "equal digests of the weights on both sides",
        _SYNC,
        "TRL 5312; vime 274; torchtitan 2402; vllm 32718",
        ("missed-sync", "head-not-sent"),
    ),
    _cause(
        8, "layers-swapped", "tensors were loaded under each other's names", "weight update", "update",
        {
            "onset": "a jump at one update",
            "size": "far beyond what an update does: the engine's text no longer follows the policy",
            "growth": "flat",
        },
        "a mismatch of the size of an update",
        _SYNC,
        "TRL 5312 (.015 to .201, ratio 3e-7); vime 274",
        ("layer-not-loaded", "reload-corrupts-buffers"),
    ),
    _cause(
        9, "missed-sync", "an engine has older weights than it says", "weight update", "update",
        {"engine": "one engine apart, the others at the floor", "lag": "no: the label says the newest version"},
        "all engines alike, or equal digests",
        _SYNC,
        "AReaL 1091; vLLM documentation of external load balancing",
        ("layer-not-loaded",),
    ),
    _cause(
        13, "head-bf16", "the last projection runs in bfloat16 on one side only", "numerics", "step 0",
        {
            "grid": "the logits of one side alone lie on the grid of bfloat16",
            "size": "some .001 to .03 nats, flat over the run",
            "sign": "both",
            "repeatable": "both sides repeat themselves",
            "growth": "flat",
        },
        "logits of both sides, or of neither, on the grid of bfloat16",
        Action("fix", "run the last projection in float32 on both sides", fix="fp32-lm-head", value="on"),
        "prime-rl 2438; NeMo 3936, 4096; vllm 48390",
        ("body-bf16", "kernel-formula"),
    ),
    _cause(
        22, "shifted-ids", "the trainer scores other tokens than the engine drew: ids shifted by one", "data", "step 0",
        {"shift": "the trainer's logprobs fit the neighbouring token", "size": "some nats"},
        "the best correlation in place",
        Action("text", "hand the engine's token ids to the trainer as they are; do not tokenise its text again"),
        "TRL 5224; rllm 816, 898; slime 117; eval-protocol 457",
        ("template-difference",),
    ),
    _cause(
        23, "placeholder-zero", "the last token of a sequence has a placeholder of 0.0 for a logprob", "data", "step 0",
        {"zeros": "exactly 0.0 at last tokens and nowhere else", "tails": "few tokens make most of the sum"},
        "a logprob at the last token that is not 0.0",
        Action("text", "leave out the appended end of sequence, or ask the engine for its logprob"),
        "open-instruct 1041; SkyRL 758; TensorRT-LLM 18190",
    ),
    _cause(
        26, "dropout", "dropout is on where the trainer scores", "numerics", "step 0",
        {
            "repeatable": "the trainer gives the same token after the same tokens different logprobs",
            "sampler": "the engine's",
            "growth": "flat",
        },
        "a trainer that repeats its own logprobs",
        Action("setting", "put the trainer's model into evaluation mode where it scores", setting="model.eval()"),
        "reef 536; TRL 3234",
        ("batch-variant",),
    ),
    _cause(
        28, "head-not-sent", "the last projection was not sent: a tied embedding, or a head left out", "weight update",
        "update",
        {"ids": "d is structured by token id", "growth": "grows with the updates since", "engine": "alike or one"},
        "a difference that does not depend on the token id, or equal digests",
        Action("sync", "send the head (or the tied embedding under both names), then sync again"),
        "prime-rl 2823; torchtitan 2402; vllm 51665",
        ("layer-not-loaded",),
    ),
    _cause(
        37, "lag", "tokens come from older weights: the price of asynchrony, not an error", "staleness", "any",
        {"lag": "|d| follows the lag and is at the floor without it", "staleness": "high"},
        "a mismatch of tokens of the newest weights",
        Action("setting", "sync more often, or lower rollout.max_lag", setting="rollout.max_lag"),
        "",
    ),
    _cause(
        41, "trainer-temperature", "the trainer scores at another temperature than the engine samples", "semantics",
        "step 0",
        {
            "context": "after the same tokens the engine's logprobs are the trainer's times a factor",
            "sampler": "the engine's: its report is right, the trainer's temperature is not",
        },
        "a slope of 1 within contexts",
        Action("setting", "set the trainer's temperature to that of the sampling parameters", setting="temperature"),
        "tinker-feedback 148; TRL 4159",
        ("raw-logprobs",),
    ),
)  # fmt: skip
"""Causes that passive instruments are calibrated for, in the order of the table."""

CAUSES: Final[tuple[Cause, ...]] = tuple(sorted((*MODELLED, *REST), key=lambda one: one.number))
BY_NAME: Final = {one.name: one for one in CAUSES}
