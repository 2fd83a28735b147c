"""One engine: the Ray actor around vLLM, its fixes, its weight updates, and what runs inside the worker."""
