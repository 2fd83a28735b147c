"""What a diagnosis says in one sentence, where tokens tell one cause from the next one and where they do not."""

from __future__ import annotations

import pytest

from console.diagnosis.causes import BY_NAME
from console.diagnosis.model import UNKNOWN, Normal, Ranked
from console.diagnosis.sentences import rival, sentence

NORMAL = Normal(1e-4, 0.05, "", "")


def ranked(*chances: tuple[str, float]) -> list[Ranked]:
    return [Ranked(name, BY_NAME.get(name), chance) for name, chance in chances]


def test_a_cause_that_is_sure_is_named_alone() -> None:
    found = ranked(("head-not-sent", 0.7), ("layer-not-loaded", 0.28))
    assert rival("head-not-sent", ["head-not-sent"], found) is None
    assert sentence("cause", ["head-not-sent"], found, NORMAL) == BY_NAME["head-not-sent"].title


def test_one_that_tokens_do_not_tell_from_the_next_is_named_with_it() -> None:
    found = ranked(("head-not-sent", 0.4), (UNKNOWN, 0.35), ("layer-not-loaded", 0.3), ("missed-sync", 0.2))
    said = sentence("cause", ["head-not-sent"], found, NORMAL)
    assert said == f"probably {BY_NAME['head-not-sent'].title}; or else {BY_NAME['layer-not-loaded'].title}"


@pytest.mark.parametrize("other", [("missed-sync", 0.1), ("placeholder-zero", 0.4)])
def test_what_is_far_less_likely_or_named_itself_is_no_rival(other: tuple[str, float]) -> None:
    found = ranked(("head-not-sent", 0.5), other)
    assert rival("head-not-sent", ["head-not-sent", "placeholder-zero"], found) is None
