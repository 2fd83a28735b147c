"""Two hundred strings that attack a program that shows them: texts of models and producers, errors of engines."""

from __future__ import annotations

import itertools
from typing import Final

ACTIONS: Final = ("app.exit", "app.leave", "screen.act_sync", "app.act_pause", "screen.choose", "app.bell", "fired")

MARKUP: Final = [
    *(f"[@click={action}]{form}[/]" for action in ACTIONS for form in ("token", "x" * 40)),
    *(f"[@click={action}('a', 1)]here[/@click]" for action in ACTIONS),
    *(f"[@mouse.down={action}]here[/]" for action in ACTIONS[:3]),
    *(
        "[/]",
        "[/foo]",
        "token [/foo]",
        "[[",
        "]]",
        "[bold",
        "[bold]never closed",
        "[red on blue]x[/]",
        "[link=x]y[/link]",
    ),
    *(
        "[$accent]x[/]",
        "[blink reverse]x[/]",
        "\\[bold]",
        "[not closed",
        "[]",
        "[ ]",
        "[@click=]x[/]",
        "{{x}}",
        "%s%n%d",
    ),
]
CSI: Final = [
    *(f"\x1b[{code}" for code in ("2J", "H", "31m", "0m", "?1049l", "?1000h", "6n", "5n", "c", "3J", "999;999H", "8m")),
    *("\x1b[?2004h", "\x1b[>c", "\x1b[=5n", "\x1bc", "\x1b7\x1b8", "\x1b(0", "\x1b#8", "\x1b[", "\x1b", "\x1b\x1b[m"),
]
OSC: Final = [
    *("\x1b]0;owned\x07", "\x1b]2;owned\x1b\\", "\x1b]52;c;b3duZWQ=\x07", "\x1b]8;;http://x/\x1b\\link\x1b]8;;\x1b\\"),
    *(
        "\x1b]9;notify\x07",
        "\x1b]777;notify;a;b\x07",
        "\x1b]1337;File=:AA==\x07",
        "\x1b]10;?\x07",
        "\x1b]4;0;?\x07",
        "\x1b]",
    ),
    *(
        "\x1bPq#0;2;0;0;0\x1b\\",
        "\x1bP+q544e\x1b\\",
        "\x1b^private\x1b\\",
        "\x1b_apc\x1b\\",
        "\x1bXsos\x1b\\",
        "\x1bPtmux;\x1b\x1b]0;x\x07",
    ),
]
C1: Final = [*(chr(code) + "2J" for code in range(0x80, 0xA0)), "a\x9b31mb", "\x9d0;owned\x9c", "\x90q\x9c"]
C0: Final = [*(f"a{chr(code)}b" for code in range(0x20)), "a\x7fb", "line\r\noverwritten", "\x08\x08\x08back"]
BIDI: Final = [
    *(f"abc{chr(code)}def" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x061C, 0x200E, 0x200F)),
    *("\u202egnp.exe", "\u2067rtl\u2069", "\u202a" * 50),
]
SURROGATES: Final = ["\ud800", "\udfff", "a\ud83d", "\ude00b", "\udc80\udcff", "x\ud83dy\ude00z"]
ZERO_WIDTH: Final = [
    *(
        "a\u200bb",
        "\u200d" * 30,
        "\ufeffbom",
        "e" + "\u0301" * 200,
        "\u2060\u2061",
        "\u00adsoft",
        "\U000e0041\U000e007f",
    ),
    *(
        "\u115f\u1160\u3164",
        "👩\u200d👩\u200d👧",
        "z" + "\u0489" * 40,
        "\u2028para\u2029",
        "\uffff\ufffe",
        "\U0010ffff",
        "\ue000",
    ),
]
LONG: Final = [
    "A" * 20_000,
    "漢" * 5_000,
    "\x1b[31m" * 3_000,
    "[" * 5_000,
    "[@click=app.exit]" * 500,
    "👾" * 3_000,
    "\u200b" * 5_000,
]

MIXED: Final = [
    *(f"{csi}[@click={action}]{bidi}x[/]" for csi, action, bidi in zip(CSI, ACTIONS, BIDI, strict=False)),
    *(f"{osc}{c1}" for osc, c1 in zip(OSC[:8], C1[:8], strict=True)),
]

_GROUPS: Final = (MARKUP, CSI, OSC, C1, C0, BIDI, SURROGATES, ZERO_WIDTH, LONG, MIXED)
CORPUS: Final = list(dict.fromkeys(itertools.chain.from_iterable(_GROUPS)))
"""Each string once; at least 200."""
