"""What a page sends to `driftline serve`: every kind of message, and all that is none."""

from __future__ import annotations

import pytest

from console.web.messages import LARGEST, Focus, Keys, Message, Ping, Size, read, size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["stdin", "q"]', Keys("q")),
        ('["resize", {"width": 120, "height": 40}]', Size(120, 40)),
        ('["resize", {"width": 1000000000, "height": -1, "more": 1}]', Size(LARGEST, 1)),
        ('["focus"]', Focus(True)),
        ('["blur", null]', Focus(False)),
        ('["ping", 1790000000.5]', Ping(1790000000.5)),
        ('["ping"]', Ping(None)),
    ],
)
def test_what_a_page_sends(text: str, message: Message) -> None:
    assert read(text) == message


@pytest.mark.parametrize(
    "text",
    [
        "", "nonsense", "null", "[]", "{}", "[1]", '["stdin"]', '["stdin", 7]', '["resize", null]',
        '["resize", {"width": 80}]', '["resize", {"width": "80", "height": 24}]', '["resize", {"width": 80.5}]',
        '["resize", {"width": 1e400, "height": 24}]', '["resize", {"width": true, "height": 24}]', '["quit"]',
        '["ping", {}]', "[" * 100_000, '["stdin", "\\ud800"]',
    ],
)  # fmt: skip
def test_what_is_none_of_it(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read(text)


def test_sizes_are_kept_within_what_is_allowed() -> None:
    assert size(0, LARGEST + 1) == Size(1, LARGEST)
