"""Run first by every process that vLLM spawns from an actor, before it imports vLLM: see `engine.actor.starting`."""

import gc

gc.disable()  # until the plugin is loaded there: `engine.plugin.pool_engine`
