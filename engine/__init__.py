"""The engine room: Ray actors, each hosting a vLLM engine."""
