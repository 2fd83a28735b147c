"""Finding by a few letters in their order: which entries fit, the best first. Pure."""

from __future__ import annotations

from typing import Final

_START: Final = 8
_NEXT: Final = 5


def match(query: str, text: str) -> tuple[int, tuple[int, ...]] | None:
    """Score of `query` in `text` and the places of its letters; None if its letters are not all there in their order.

    Letters that begin a word or follow one another count more; a letter late in the text counts less. The places are
    those of the first fit from the left that a run of letters extends, which is what the eye looks for.
    """
    lower = text.lower()
    words = query.lower().split()
    score, places = 0, []
    for word in words:
        found = _word(word, lower)
        if found is None:
            return None
        score += found[0]
        places += found[1]
    return score, tuple(sorted(set(places)))


def _word(word: str, text: str) -> tuple[int, list[int]] | None:
    at = text.find(word)
    if at >= 0:
        starts = at == 0 or not text[at - 1].isalnum()
        return (_START if starts else 0) + _NEXT * len(word) - min(at, 40) // 4, list(range(at, at + len(word)))
    places: list[int] = []
    score = position = 0
    for char in word:
        at = text.find(char, position)
        if at < 0:
            return None
        if at == 0 or not text[at - 1].isalnum():
            score += 2
        if places and at == places[-1] + 1:
            score += 2
        places.append(at)
        position = at + 1
    return score - (places[-1] - places[0]) // 4, places
