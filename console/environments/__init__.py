"""Environments of other vLLM versions, each a virtual environment of its own made from pins that lie in the repository."""
