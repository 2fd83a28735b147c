"""Which processes a local Ray is started without, on Ray's own class: a name that it does not have shows here."""

from __future__ import annotations

import pytest

from engine.cluster.local_ray import UNUSED, unused_left_out


def failing_start(node: type) -> None:
    with unused_left_out():
        assert all(vars(node)[name] is instead for name, instead in UNUSED.items())
        raise RuntimeError("Ray did not start")


def test_ray_has_what_is_left_out_and_has_it_again_afterwards() -> None:
    node = pytest.importorskip("ray._private.node").Node
    own = {name: vars(node)[name] for name in UNUSED}
    with pytest.raises(RuntimeError, match="did not start"):
        failing_start(node)
    assert {name: vars(node)[name] for name in UNUSED} == own
