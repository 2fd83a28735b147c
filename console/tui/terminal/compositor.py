"""The bytes sent to the terminal for a change: the cells that changed, and of their colours what differs.

Textual sends a dirty span from the start of its widget, each run of one style with all of its colours before it and a
reset behind it: for two digits of a title, a hundred bytes. Here a span is cropped on both sides, and a run is
preceded only by those of foreground, background and attributes that are not set already: over SSH, where an
operator pays by the byte, that is most of what a live screen costs (measured by tests/bench/bench_bytes.py).
"""

from __future__ import annotations

from functools import lru_cache

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from textual.strip import Strip

from console.tui.terminal.textual_patches import ChopsUpdate, Compositor, attribute_codes, color_system

_Codes = tuple[str, str, str]
_PLAIN: _Codes = ("", "39", "49")


@lru_cache(maxsize=1024)
def _codes(style: Style | None, system: ColorSystem) -> _Codes:
    """SGR parameters of a style: attributes, foreground, background."""
    if style is None:
        return _PLAIN
    attributes = attribute_codes(style, system)
    colours = []
    for colour, foreground in ((style.color, True), (style.bgcolor, False)):
        plain = "39" if foreground else "49"
        codes = () if colour is None else colour.downgrade(system).get_ansi_codes(foreground)
        colours.append(";".join(codes) or plain)
    return attributes, colours[0], colours[1]


class _Pen:
    """Writes runs and knows how the terminal stands; None is not known."""

    def __init__(self, system: ColorSystem) -> None:
        self._system = system
        self._now: _Codes | None = None
        self.out: list[str] = []

    def move(self, x: int, y: int) -> None:
        self.out.append(f"\x1b[{y + 1};{x + 1}H")

    def write(self, strip: Strip) -> None:
        for text, style, control in strip:
            if control or not text:
                continue
            wanted = _codes(style, self._system)
            if wanted != self._now:
                self._set(wanted)
            self.out.append(text)

    def _set(self, wanted: _Codes) -> None:
        if self._now is None or wanted[0] != self._now[0]:
            # Attributes are only ever added by their codes: from a clean slate.
            codes = ["0", *(part for part in wanted if part not in ("", "39", "49"))]
        else:
            codes = [part for part, before in zip(wanted[1:], self._now[1:], strict=True) if part != before]
        self.out.append(f"\x1b[{';'.join(codes)}m")
        self._now = wanted

    def close(self) -> str:
        if self._now is not None:
            self.out.append("\x1b[0m")
        return "".join(self.out)


class TightUpdate(ChopsUpdate):
    """Spans of the screen, to the cell."""

    def render_segments(self, console: Console) -> str:
        system = color_system(console)
        if system is None:
            return super().render_segments(console)
        pen = _Pen(system)
        for y, left, right in self.spans:
            for end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                start, stop = max(x, left), min(end, right)
                if strip is None or start >= stop:
                    continue
                pen.move(start, y)
                pen.write(strip.crop(start - x, stop - x))
        return pen.close()


class TightCompositor(Compositor):
    """Textual's compositor with updates that are as small as they can be."""

    def render_partial_update(self) -> ChopsUpdate | None:
        update = super().render_partial_update()
        return None if update is None else TightUpdate(update.chops, update.spans, update.chop_ends)
