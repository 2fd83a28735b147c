"""What a filter of tokens may say; the grammar is `console.store.filter_grammar`.

    engine=engine-0 version>=12 position<3 step=812 |d|>0.1 text=foo prompt="2 + 2"

Parsing does not depend on a run; `console.store.tokens.survey` applies a filter to a store.
"""

from __future__ import annotations

from typing import Final

from console.store.filter_grammar import Kind, Vocabulary

FIELDS: Final[dict[str, Kind | tuple[str, ...]]] = {
    "engine": "word", "step": "whole", "version": "whole", "lag": "whole", "position": "whole", "id": "whole",
    "d": "number", "|d|": "number", "rollout": "number", "trainer": "number", "reward": "number",
    "text": "part", "prompt": "part",
}  # fmt: skip
"""`version` sampled the token, `lag` is how many versions the trainer was ahead of it; d = trainer - rollout."""

TOKENS: Final = Vocabulary(
    FIELDS,
    "unknown field '{name}'{near}; one of: {fields}",
    {"pos": "position", "v": "version", "piece": "text", "abs": "|d|", "diff": "d"},
)
