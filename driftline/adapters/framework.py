"""One framework in this process: which of its functions are wrapped, and the trainer that joins by the first of them.

Frameworks import an adapter in many processes, of which one holds the training loop. A hook costs nothing until the
framework reaches it, and only then is a run joined: by the process that does.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

from driftline.adapters.joined_trainer import JoinedTrainer
from driftline.after_import import after_import
from driftline.rundir import RUN_VARIABLE

log = logging.getLogger("driftline.adapters")

MARK: Final = "_driftline_wraps"
"""Attribute of a wrapper: the framework's function that it calls."""

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


class Hook(NamedTuple):
    """A function of the framework's: `path` ("Class.method" or "function") in `module`.

    `wrap` makes of it what takes its place. `lost` is what the run does not get without it, "" where another hook gives
    the same.
    """

    module: str
    path: str
    wrap: Wrap
    lost: str = ""

    @property
    def place(self) -> str:
        return f"{self.module}.{self.path}"


class Framework:
    """One framework in this process. `package` is its distribution, `tested` the releases it was tried on.

    `rank` as in JoinedTrainer: 0 where the process that reaches the hooks is the only one of its kind.
    """

    def __init__(self, name: str, package: str, tested: Sequence[str], *, rank: int | None = None) -> None:
        self.name, self.package, self.tested = name, package, tuple(tested)
        self._rank = rank
        self._to: Mapping[str, str | Path | None] = {}
        self._lock = threading.Lock()
        self._hooks: list[Hook] = []
        self._missing: dict[str, str] = {}
        self._trainer: JoinedTrainer | None = None

    def attach(self, hooks: Sequence[Hook], *, run: str | Path | None = None, key: str | Path | None = None) -> bool:
        """Put the hooks into the modules that are imported, and into the others once they are. Once a process.

        Returns False, and leaves the framework as it is, where neither `run` nor $DRIFTLINE_RUN names a run.
        """
        if run is None and not os.environ.get(RUN_VARIABLE):
            log.info("driftline: inert beside %s, because %s names no run", self.name, RUN_VARIABLE)
            return False
        self._to = {"run": run, "key": key}
        with self._lock:
            known = {hook.place for hook in self._hooks}
            new = [hook for hook in hooks if hook.place not in known]
            self._hooks += new
        for hook in new:
            after_import(hook.module, functools.partial(self._put, hook))
        return True

    @property
    def installed(self) -> str:
        """The framework's release, "" where it is not installed as a package."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return ""

    def trainer(self) -> JoinedTrainer:
        """The trainer of this process; it joins the run at the first call. Raises nothing."""
        with self._lock:
            if self._trainer is None:
                self._trainer = JoinedTrainer(self.name, self.installed, self.tested, **self._to, rank=self._rank)
                self._look_for_modules()
                for place, lost in self._missing.items():
                    self._trainer.hook_missing(place, lost)
            return self._trainer

    def report(self, place: str, act: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """Call `act` with the trainer and the arguments if it reports to a run. Raises nothing: the run hears of it."""
        trainer = self.trainer()
        if trainer.active:
            with trainer.guard(place):
                act(trainer, *args, **kwargs)

    def before(self, act: Callable[..., None]) -> Wrap:
        """A wrapper that reports `act(trainer, ...)` with the arguments, then calls the function."""

        def wrap(own: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(own)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                self.report(own.__qualname__, act, *args, **kwargs)
                return own(*args, **kwargs)

            return wrapper

        return wrap

    def after(self, act: Callable[..., None]) -> Wrap:
        """A wrapper that calls the function, then reports `act(trainer, result, ...)` with the arguments."""

        def wrap(own: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(own)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                result = own(*args, **kwargs)
                self.report(own.__qualname__, act, result, *args, **kwargs)
                return result

            return wrapper

        return wrap

    def close(self, failed: str = "") -> None:
        """The framework's training has ended, if one has begun in this process."""
        if self._trainer is not None:
            self._trainer.close(failed)

    def _put(self, hook: Hook, module: ModuleType) -> None:
        """Put a hook into its module, which has just been imported. Raises nothing: an import is what called it."""
        try:
            *owners, name = hook.path.split(".")
            owner: Any = functools.reduce(getattr, owners, module)
            own = getattr(owner, name)
            if not hasattr(own, MARK):
                wrapper = hook.wrap(own)
                setattr(wrapper, MARK, own)
                setattr(owner, name, wrapper)
        except Exception as error:  # noqa: BLE001  a framework's module may be anything
            self._lose(hook, f"{type(error).__name__}: {error}")

    def _look_for_modules(self) -> None:
        for hook in self._hooks:
            if hook.module in sys.modules:
                continue
            try:
                found = importlib.util.find_spec(hook.module) is not None
            except Exception:  # noqa: BLE001  it imports the framework's package above
                found = False
            if not found:
                self._lose(hook, "no such module")

    def _lose(self, hook: Hook, why: str) -> None:
        if not hook.lost:
            return
        self._missing[hook.place] = hook.lost
        if self._trainer is not None:
            self._trainer.hook_missing(hook.place, hook.lost)
        else:
            log.info("driftline: %s has no %s (%s)", self.name, hook.place, why)
