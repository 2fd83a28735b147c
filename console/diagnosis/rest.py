"""Causes without calibrated likelihoods: passive instruments do not name them, and each says why and what looks alike.

Pure data, by the rows of docs/diagnosis.md.
"""

from __future__ import annotations

from typing import Final

from console.diagnosis.model import Action, Cause, Layer, Onset, Prediction


def _entry(
    number: int,
    name: str,
    title: str,
    layer: Layer,
    onset: Onset,
    predicts: tuple[str, str],
    unseen: str,
    alike: tuple[str, ...],
    action: str,
    source: str,
) -> Cause:
    """`predicts` is (instrument, what it shows); `unseen` says why passive instruments do not name it."""
    return Cause(
        name, title, layer, onset, (Prediction(*predicts),), f"not seen: {unseen}", Action("text", action), source,
        number, passive=False, alike=alike, unseen=unseen,
    )  # fmt: skip


REST: Final[tuple[Cause, ...]] = (
    _entry(
        3, "generation-config", "defaults of the model's generation_config are applied", "semantics", "step 0",
        ("sign", "as top-k or top-p, while the run's own configuration says off"),
        "the same numbers as top-k or top-p: only the engine's effective parameters tell", ("top-k", "top-p"),
        "start the engine with generation_config set to vllm", "NeMo 3497; vime 6; ART 140",
    ),
    _entry(
        7, "reset-no-op", "a reset of the prefix cache was refused", "inference path", "update",
        ("position", "as stale-prefix-cache, while the log says reset"),
        "the same numbers as a cache that was never reset: the sync's reset result tells", ("stale-prefix-cache",),
        "reset with reset_running_requests, and check what it returns", "NeMo 3929, 3839",
    ),
    _entry(
        10, "reload-corrupts-buffers", "a layerwise reload corrupts buffers (MoE, Mamba)", "weight update",
        "frozen weights", ("size", "nats at the first reload, also of identical weights"),
        "looks like layers-swapped; a reload of unchanged weights tells", ("layers-swapped",),
        "reload unchanged weights once; restart the engine if that changes its logprobs", "vllm 48312, 42481, 44371",
    ),
    _entry(
        11, "graph-freed-pointer", "a CUDA graph holds a pointer that a reload has freed", "inference path", "update",
        ("onset", "a jump at the first reload"), "looks like layer-not-loaded; eager mode tells", ("layer-not-loaded",),
        "run with enforce_eager, or capture again after each load", "prime-rl 3543 (.194 to .024); vllm 52626",
    ),
    _entry(
        12, "sleep-loses-buffers", "sleep at level 2 loses buffers", "weight update", "wake",
        ("size", "garbage from token 0 on, right after a wake"),
        "wakes are not recorded by every producer; looks like layers-swapped", ("layers-swapped",),
        "use sleep level 1, or restart the engine", "vllm 16564, 29341, 54235; NeMo 2631",
    ),
    _entry(
        14, "body-bf16", "the body runs in bfloat16", "numerics", "step 0",
        ("size", "|d| in proportion to 1 - p, .01 to .04 nats: this is the floor of such a stack"),
        "it is the floor itself; against head-bf16 only a switch of the head tells", ("head-bf16", "none"),
        "float16 has an eighth of it; on both sides", "arXiv 2510.26788; Precision-RL 10; Fast-LLM 525",
    ),
    _entry(
        15, "batch-variant", "kernels give other results at other batch sizes", "numerics", "step 0",
        ("repeatable", "a side differs from itself when the batch changes"),
        "at some .05 nats it looks like a bfloat16 body; a replay in another batch tells", ("body-bf16", "dropout"),
        "batch-invariant kernels, or equal micro-batches", "verl 6280, 2996, 6829; TRL 6789",
    ),
    _entry(
        16, "kernel-formula", "a kernel computes another formula (norm cast order, RoPE type)", "numerics", "step 0",
        ("size", "every token off, .064 on average, 74 % equal"),
        "only activations layer by layer name the layer", ("head-bf16", "body-bf16"),
        "compare activations layer by layer", "verl-omni 637; prime-rl 1167; TE 1132; vllm 49616",
    ),
    _entry(
        17, "cascade-attention", "cascade attention differs on some GPUs", "numerics", "step 0",
        ("position", "large batches with a long shared prefix only"),
        "batch sizes are not recorded with tokens; a switch tells", ("batch-variant",),
        "start with disable_cascade_attn", "vllm 22103, 17652; verl 3595",
    ),
    _entry(
        18, "prefix-cache-corrupts", "prefix caching corrupts long prompts", "inference path", "step 0",
        ("position", "clean with the cache off or in small batches"),
        "looks like stale-prefix-cache without updates; a switch of the cache tells", ("stale-prefix-cache",),
        "stop reading the prefix cache", "verl 2387",
    ),
    _entry(
        19, "moe-routing", "experts are chosen differently on the two sides", "numerics", "step 0",
        ("tails", "few tokens with |d| above ln 2"),
        "whether a model has experts is not recorded; replay of the routing tells", ("kernel-formula",),
        "replay the engine's routing in the trainer", "arXiv 2510.11370; Megatron 4168, 4256; miles 2722",
    ),
    _entry(
        20, "trainer-tensor-parallel", "row-parallel sums of the trainer in another order", "numerics", "step 0",
        ("growth", "a slow trend upward"), "looks like the floor; only without tensor parallelism it goes", ("none",),
        "compare with tensor parallelism 1", "NeMo documentation, dtensor accuracy; NeMo 1767",
    ),
    _entry(
        21, "fp8-cache", "fp8 keys and values, or wrong weight scales", "numerics", "step 0",
        ("position", "begins at a token index and grows with length"),
        "looks like rope-scaling; the cache's type and its scales tell", ("rope-scaling",),
        "calibrate the scales, or keep the cache in the model's type", "NeMo 3226, 3008; verl 4435; prime-rl 3555",
    ),
    _entry(
        24, "template-difference", "a begin token or the template differs", "data", "step 0",
        ("position", "position 0 far larger, decays"),
        "what stands before the first token is not recorded: any wrong prompt looks so", ("shifted-ids", "padding"),
        "compare the prompts' token ids of both sides", "marin 1879",
    ),
    _entry(
        25, "foreign-tokens", "tool or user tokens count as sampled", "data", "step 0",
        ("zeros", "0.0 in the engine, near impossible in the trainer, by round"),
        "rounds are not recorded with tokens", ("placeholder-zero",), "repair the loss mask", "verl 5229",
    ),
    _entry(
        27, "lora-merge", "an adapter is merged on the bfloat16 grid", "weight update", "update",
        ("growth", "zero at first, grows with the adapter's norm"),
        "looks like layer-not-loaded; adapters are not recorded", ("layer-not-loaded",),
        "merge in float32, or serve the adapter unmerged", "NeMo 3696; SkyRL 1776; TRL 6688, 3466",
    ),
    _entry(
        29, "padded-vocabulary", "padding of the vocabulary is part of one softmax", "semantics", "step 0",
        ("context", "d depends on the position only, largest at high entropy"),
        "the same pattern as top-k but that rare tokens are drawn", ("top-k",),
        "mask the padded ids before the softmax", "marin 2458; verl's vLLM patch",
    ),
    _entry(
        30, "late-processors", "asynchronous scheduling applies penalties a step late", "inference path", "step 0",
        ("repeats", "only requests with penalties"), "looks like repetition-penalty", ("repetition-penalty",),
        "switch async scheduling off", "vllm 27878, 26467, 27910, 52461",
    ),
    _entry(
        31, "speculative-decoding", "accepted drafts carry wrong logprobs", "inference path", "step 0",
        ("position", "near the longest length, or requests with accepted drafts only"),
        "drafts are not recorded with tokens", (), "switch speculative decoding off", "vllm 38711, 53488",
    ),
    _entry(
        32, "linear-attention-state", "states of Mamba or gated linear layers are wrong", "inference path", "any",
        ("position", "on prefix hits or after a reload"), "looks like stale-prefix-cache",
        ("stale-prefix-cache", "layers-swapped"), "switch the prefix cache off for such models",
        "tpu-inference 3412; prime-rl 2671; vllm 48284",
    ),
    _entry(
        33, "padding", "padding, position ids or packing are wrong in the trainer", "data", "step 0",
        ("repeatable", "the trainer differs from itself; the same row alone is clean"),
        "pad counts are not recorded with tokens", ("dropout", "template-difference"),
        "score one row alone and compare", "TRL 6800, 7087; transformers 29029; verl 1381",
    ),
    _entry(
        34, "softcap-window", "a backend drops the soft cap or the sliding window", "numerics", "step 0",
        ("position", "grows past the window"), "the model's family is not recorded", ("rope-scaling", "kernel-formula"),
        "use a backend that has it", "sglang 33915; vllm-metal 665; prime-rl 2362",
    ),
    _entry(
        35, "rope-scaling", "RoPE is scaled on one side only", "numerics", "step 0",
        ("position", "clean up to the original context, then grows"),
        "looks like fp8-cache; the two configurations tell", ("fp8-cache",), "use one configuration for both sides",
        "ROLL 276; unsloth 3083",
    ),
    _entry(
        36, "engine-drift", "an engine drifts with its uptime", "inference path", "frozen weights",
        ("growth", "grows at a learning rate of 0, a restart cures it"),
        "looks like layer-not-loaded unless the weights are frozen", ("layer-not-loaded",), "restart the engine",
        "open-instruct 1473",
    ),
    _entry(
        38, "tail-amplification", "rare tokens differ most, and those drawn are the over-rated ones", "numerics",
        "step 0", ("tails", "only low p; slightly one-sided by selection"), "benign: part of every floor", ("none",),
        "none needed; a correction bounds its weight", "arXiv 2512.23087; verl-omni 280",
    ),
    _entry(
        39, "sequence-product", "a product over a sequence is taken for a mismatch of its tokens", "data", "step 0",
        ("size", "tokens are fine while the sequence's weight collapses with length"),
        "token pairs are fine by definition", ("none",), "judge by token, or by the mean over a sequence",
        "NeMo 2269; TRL 4772",
    ),
    _entry(
        40, "image-inputs", "images are processed differently", "data", "step 0",
        ("position", "rows with images only"), "which rows have images is not recorded", ("template-difference",),
        "compare the processors of both sides", "NeMo 2260",
    ),
)  # fmt: skip
