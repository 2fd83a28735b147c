"""The run of the real trainer that several files share: its configuration, and its trainer started with it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.live_run import LiveRun

CONFIG = """
[run]
name = "trainer-test"
steps = 4000
[model]
warm_start_batches = 60
[task]
prefix = 32             # one block that all prompts share, so that there is something to cache
[engine]
max_model_len = 64
block_size = 32
kv_cache_gb = 0.25
[sampling]
temperature = 0.7       # at 1 raw and processed logprobs are the same numbers
[rollout]
prompts = 4
samples = 4             # 16 sequences a step: the frames of tokens hold all of them
ahead = 0
[trainer]
lr = 5e-4
passes = 2
head = "float32"        # the trainer's stays: what is measured is the engine's head alone
[fixes]
processed-logprobs = "on"
prefix-cache-off = "on"
inflight-keep = "wait"  # nothing is in flight across an update, so that no token is sampled over older weights' KV
fp32-lm-head = "on"
"""


class TrainedRun(LiveRun):
    """The shared run, whose trainer is started with it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, CONFIG)
        self.trainer: subprocess.Popen[str] = self.train()
