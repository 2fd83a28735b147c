"""One engine: the Ray actor around vLLM, its fixes and its weight updates."""
