"""Virtual environments of other vLLM versions, each made from pins that lie in the repository."""
