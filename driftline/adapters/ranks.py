"""Which process of a distributed training this one is."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import NamedTuple


class Rank(NamedTuple):
    """One process of `world` that train together; 0 speaks for them."""

    rank: int
    world: int


def own_rank(environ: Mapping[str, str] = os.environ) -> Rank:
    """As torch.distributed says where it is set up, else $RANK and $WORLD_SIZE as launchers set them, else 0 of 1."""
    distributed = sys.modules.get("torch.distributed")  # not imported for the question
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return Rank(int(distributed.get_rank()), int(distributed.get_world_size()))
    return Rank(_number(environ.get("RANK"), 0), max(1, _number(environ.get("WORLD_SIZE"), 1)))


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else otherwise
