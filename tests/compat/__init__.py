"""What the engine plugin does on other versions of vLLM, each in an environment of its own: `make compat`."""
