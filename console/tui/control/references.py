"""Holding the run on show against other runs: which, as the operator says."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from console.tui.paint.units import counted
from console.tui.watch.watched_run import Watch

if TYPE_CHECKING:
    from console.tui.host import Host


class References:
    """Reading them takes long and is a worker's; what a run is held against is its watch's `judging`."""

    def __init__(self, app: Host, first: tuple[str, ...]) -> None:
        """`first`: the runs to begin with, as `choose` takes them."""
        self._app, self._first = app, first

    def begin(self) -> None:
        """Read those that were given at the start."""
        if self._first:
            self.choose(self._first)

    def choose(self, names: tuple[str, ...]) -> None:
        """Hold the run on show against other runs from now on (ids, directories, FILE.parquet), or against none."""
        app, watch = self._app, self._app.showing
        number = watch.judging.choose(names)
        app.say(f"reading {counted(len(names), 'reference run')}" if names else "no reference")
        if names:
            app.run_worker(partial(self._load, watch, number), name="reference", group="reference", thread=True)

    def _load(self, watch: Watch, number: int) -> None:
        watch.judging.load(number)
        self._app.call_from_thread(self._loaded, watch, number)

    def _loaded(self, watch: Watch, number: int) -> None:
        chosen = watch.judging.chosen
        if chosen.number == number and chosen.state == "failed":
            self._app.say(f"reference: {chosen.error}", "error")
        self._app.refresh_view()
