"""Text from the wire: nothing that drives a terminal or turns a line around gets through."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from driftline.frames import EngineFix, Event, FixState, Metrics, Tokens
from driftline.text import sanitize, sanitize_struct

FORBIDDEN = {chr(c) for c in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))}


@given(st.text(alphabet=st.characters(), max_size=200))
def test_nothing_forbidden_is_left_and_the_rest_stays(text: str) -> None:
    clean = sanitize(text)
    assert not FORBIDDEN & set(clean)
    assert not any(0xD800 <= ord(c) <= 0xDFFF for c in clean)
    clean.encode()
    assert sanitize(clean) == clean


def test_known_tricks() -> None:
    assert sanitize("plain ünïcode 漢字 🙂") == "plain ünïcode 漢字 🙂"
    assert sanitize("\x1b[31mred\x1b[0m") == "[31mred[0m"
    assert sanitize("\x1b]0;title\x07") == "]0;title"
    assert sanitize("a\x9b2Jb") == "a2Jb"
    assert sanitize("abc\u202edef") == "abcdef"
    assert sanitize("line\nnext\tcell\r") == "line↵next⇥cell"
    assert sanitize("half \ud83d") == "half "
    assert sanitize("[@click=app.quit]stays text[/]") == "[@click=app.quit]stays text[/]"


def test_structs_are_cleaned_at_every_depth_and_kept_when_clean() -> None:
    clean = Event(1.0, "info", "a.b", "fine", data={"n": 1, "t": "x"})
    assert sanitize_struct(clean) == clean
    state = FixState("f", "on", 1, "me\x1b", 1.0, "live", (EngineFix("e\x00", "on", "live", detail="\n"),))
    cleaned = sanitize_struct(state)
    assert (cleaned.by, cleaned.engines[0].engine, cleaned.engines[0].detail) == ("me", "e", "↵")
    tokens = Tokens(1, 1, 1.0, 0, b"\x1b", b"", b"", b"", b"", b"", pieces=("a", "b\x1b", "c"))
    assert sanitize_struct(tokens).pieces == ("a", "b", "c")
    assert sanitize_struct(tokens).ids == b"\x1b", "arrays are not text"


def test_metrics_keep_their_numbers() -> None:
    for _ in range(2):  # the second time the names are known
        values = {"reward/mean": math.nan, "policy/kl_ref": -0.0}
        cleaned = sanitize_struct(Metrics(1, 1, 1.0, values, {"policy/kl_ref": "k3\x07"}))
        assert list(cleaned.values) == list(values)
        assert math.isnan(cleaned.values["reward/mean"])
        assert math.copysign(1, cleaned.values["policy/kl_ref"]) == -1
        assert cleaned.labels == {"policy/kl_ref": "k3"}
