"""Everything that reaches into the internals of Textual and Rich, in one place.

Each function or class names what it needs, why the public interface is not enough, and is watched by a test of its own
in `tests/tui/test_textual_patches.py`, which fails when Textual changes. The range of Textual's versions in
`pyproject.toml` is the one on which those tests pass. Nothing else of the console touches a private name of Textual.
"""

from __future__ import annotations

from collections.abc import Callable
from io import TextIOWrapper
from typing import Any, Protocol, cast

from rich.cells import cached_cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from textual._compositor import ChopsUpdate, Compositor
from textual.app import App
from textual.drivers import linux_driver
from textual.drivers.linux_driver import LinuxDriver
from textual.filter import LineFilter, Monochrome, NoColor
from textual.geometry import Region
from textual.screen import Screen

__all__ = [
    "ChopsUpdate",
    "Compositor",
    "Decoder",
    "LinuxDriver",
    "PatchedScreen",
    "attribute_codes",
    "color_system",
    "empty_caches",
    "keep_own_colours",
    "painted_text",
    "replace_decoder",
    "replace_stderr",
    "sends_mouse_reports",
    "write_now",
]


def empty_caches() -> None:
    """Forget what was computed of figures that have been drawn: it fills within an hour and is not drawn again.

    6,144 regions, a MiB, and the widths of 4,096 texts, most of them numbers. Needs the caches of `Region` and of
    `rich.cells`, which have no public bound. Those in use are made anew with the next frames.
    """
    for cached in (Region.intersection, Region.overlaps, Region.translate, cached_cell_len):
        cached.cache_clear()


class Decoder(Protocol):
    """Bytes to text, as `codecs.IncrementalDecoder.decode`."""

    def decode(self, data: bytes, final: bool = False) -> str:
        """Text of the next bytes."""


class PatchedScreen(Screen[None]):
    """A screen whose frames a compositor of ours makes, and none while the application holds drawing back.

    Needs `Screen._compositor` (Textual offers no way to give a screen another compositor), `Screen._compositor_refresh`
    and `App._batch_count`: while the application starts it holds back what is drawn, and Textual composes a whole frame
    to throw it away.
    """

    def __init__(self, compositor: Compositor) -> None:
        super().__init__()
        self._compositor = compositor

    def _compositor_refresh(self) -> None:
        if not self.app._batch_count:
            super()._compositor_refresh()


def painted_text(app: App[Any]) -> str:
    """The characters of the screen on top, row by row. Needs `Compositor.render_strips`."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


def keep_own_colours(app: App[Any]) -> None:
    """Take away the filters that turn colours into greys under NO_COLOR. Needs `App._filters`.

    The look without colours is chosen instead, and one that the operator asks for afterwards must have its colours.
    """
    kept: list[LineFilter] = [one for one in app._filters if not isinstance(one, Monochrome | NoColor)]
    app._filters = kept


def write_now(app: App[Any], text: str) -> None:
    """Write escape sequences to the terminal between two frames, from the app's thread. Needs `App._driver`."""
    if app._driver is not None:
        # From this thread and whole: in between the bytes of a screen it would be a part of them.
        app._driver.write(text)
        app._driver.flush()


class _Output(Protocol):
    """The file behind a terminal."""

    def write(self, text: str) -> int:
        """Write and return the number of characters."""

    def flush(self) -> None:
        """Hand on what is buffered."""


def replace_stderr(driver: LinuxDriver, wrap: Callable[[TextIOWrapper], _Output]) -> _Output:
    """Put a file of ours around the one that a driver writes to, and return it. Needs `LinuxDriver._file`."""
    assert driver._file is not None, "the command line has given every stream a file"
    output = wrap(driver._file)
    driver._file = cast("TextIOWrapper", output)
    return output


def replace_decoder(make: Callable[[], Decoder]) -> None:
    """Have the next input thread decode with `make()`. Needs the name `getincrementaldecoder` of the driver's module.

    The driver's module looks the decoder up by this name for every input thread that it starts; replacing the name is
    the smallest change that does not copy the method.
    """
    linux_driver.getincrementaldecoder = lambda _encoding: make  # type: ignore[assignment, attr-defined]  # see above


def sends_mouse_reports(driver: LinuxDriver) -> bool:
    """Whether the application asked for the mouse. Needs `LinuxDriver._mouse`."""
    return bool(driver._mouse)


def attribute_codes(style: Style, system: ColorSystem) -> str:
    """SGR parameters of a style's attributes (bold, underline, ...). Needs `rich.style.Style._make_ansi_codes`."""
    return style.without_color._make_ansi_codes(system)


def color_system(console: Console) -> ColorSystem | None:
    """How many colours a console has; None for none. Needs `rich.console.Console._color_system`."""
    return console._color_system
