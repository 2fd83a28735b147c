"""Whether vLLM works where this runs: it is imported, loads a tiny model made on the spot, and samples one token.

Run by its path on the Python of any environment, with any version of vLLM; hence no import of this project's. The
argument is JSON of further arguments of vLLM's `LLM`. A line that it prints begins with `driftline: `: JSON of what it
found.
"""

from __future__ import annotations

import inspect
import json
import platform
import sys
import tempfile
import time
from typing import Any


def main(arguments: dict[str, Any]) -> dict[str, Any]:
    """Versions, and seconds until vLLM was imported and until its engine was up."""
    began = time.monotonic()
    import torch
    import vllm
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from vllm.engine.arg_utils import EngineArgs

    imported = time.monotonic()
    shape = Qwen2Config(
        vocab_size=128, hidden_size=128, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64, tie_word_embeddings=False, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        Qwen2ForCausalLM(shape).float().save_pretrained(folder)
        given: dict[str, Any] = {
            "dtype": "float32", "max_model_len": 64, "max_num_seqs": 4, "enforce_eager": True, **arguments,
        }  # fmt: skip
        if "kv_cache_memory_bytes" in inspect.signature(EngineArgs).parameters:
            given["kv_cache_memory_bytes"] = 1 << 28  # else vLLM wants nine tenths of a CPU's memory to be free
        engine = vllm.LLM(model=folder, skip_tokenizer_init=True, **given)
        built = time.monotonic()
        sampling = vllm.SamplingParams(max_tokens=1, ignore_eos=True, detokenize=False)
        (output,) = engine.generate([{"prompt_token_ids": [2, 3, 4, 5]}], sampling, use_tqdm=False)
    (sequence,) = output.outputs
    (token,) = sequence.token_ids
    return {
        "vllm": vllm.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "token": int(token),
        "import_s": round(imported - began, 1),
        "build_s": round(built - imported, 1),
    }


if __name__ == "__main__":  # vLLM's own processes import this file too
    print("driftline: " + json.dumps(main(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})), flush=True)
