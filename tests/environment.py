"""What is installed here: everything, or what the quick tests need (`make test-quick` on another Python)."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

HEAVY = ("torch", "transformers", "safetensors", "vllm", "ray")
"""Packages that engine and trainer stand on."""
WITHOUT_ENGINE = not any(find_spec(name) for name in HEAVY)

needs_engine = pytest.mark.skipif(WITHOUT_ENGINE, reason="needs torch, vLLM and Ray, which are not installed here")
"""For a test that meets them in another process, or in the product's own check for them."""
