"""The operator's own configuration: one TOML file, its type, its limits and its error messages.

Lies at $DRIFTLINE_CONFIG, else $XDG_CONFIG_HOME/driftline/config.toml (~/.config by default); without one the defaults
hold. A file overrides a default, the environment a file, an option of the command line all of them. The
configuration of a run is another one: `driftline.config`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import Meta

from console.process.command_words import words
from driftline import toml_file
from driftline.rundir import RUNS_VARIABLE

CONFIG_VARIABLE: Final = "DRIFTLINE_CONFIG"
WEIGHTS: Final = (0.0, 0.6, 0.9, 0.99)
"""Weights of the moving average, in the order of the key `s`."""

Origin = Literal["default", "file", "environment", "option"]
Theme = Literal["auto", "dark", "light", "okabe-ito", "contrast", "dark-16", "light-16", "mono"]
Marker = Literal["braille", "block", "ascii"]


class ConfigError(toml_file.TomlError):
    """A file that cannot be used: one sentence with the file, the key and what is allowed."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Common options of every table of the file."""


class Notify(_Section, frozen=True):
    """Notifications of alarms beside the screen, as by the options --bell, --notify and --on-alarm."""

    bell: bool = False
    notify: bool = False
    on_alarm: str = ""


class Settings(_Section, frozen=True):
    """`fps`: frames a second at most. `runs`: the folder that holds the runs. `keys`: keys by id of the binding."""

    theme: Theme = "auto"
    marker: Marker = "braille"
    fps: Annotated[int, Meta(ge=1, le=30)] = 4
    mouse: bool = False
    smoothing: float = 0.0
    runs: str = ""
    notify: Notify = Notify()
    keys: dict[str, str] = {}


class Effective(msgspec.Struct, frozen=True):
    """The effective settings. `origins` has the origin of each key's value (`notify.bell`, `keys.live.follow`)."""

    path: Path
    settings: Settings
    origins: dict[str, Origin]

    @property
    def exists(self) -> bool:
        """Whether there is a file."""
        return self.path.exists()

    def rows(self) -> Iterator[tuple[str, Any, Origin]]:
        """Every key with its value and where that comes from, in the order of the file's description."""
        for name, value in _flat(msgspec.to_builtins(self.settings)):
            yield name, value, self.origins.get(name, "default")


_ALLOWED: Final = {
    "theme": "one of " + ", ".join(get_args(Theme)),
    "marker": "one of " + ", ".join(get_args(Marker)),
    "fps": "a whole number from 1 to 30",
    "mouse": "true or false",
    "smoothing": "one of " + ", ".join(f"{weight:g}" for weight in WEIGHTS),
    "runs": "an absolute path, or one that begins with ~",
    "notify": "a table with bell, notify, on_alarm",
    "notify.bell": "true or false",
    "notify.notify": "true or false",
    "notify.on_alarm": "a command in quotes",
    "keys": 'a table of bindings, for example "live.follow" = "F5"',
}


def path(environ: Mapping[str, str]) -> Path:
    """Path of the file, whether it exists or not."""
    own = environ.get(CONFIG_VARIABLE)
    if own:
        return Path(os.path.expanduser(own))
    base = environ.get("XDG_CONFIG_HOME") or ""
    # The specification has relative paths ignored. Not Path.home(), which raises where there is none: a container that
    # runs as a number without a name and without $HOME still has its runs.
    home = Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~/.config"))
    return home / "driftline" / "config.toml"


def load(environ: Mapping[str, str], options: Mapping[str, Any] | None = None) -> Effective:
    """The effective settings. `options` are those of the command line, by key, None where one was not given.

    Raises ConfigError; a file that is named by $DRIFTLINE_CONFIG must exist.
    """
    where = path(environ)
    origins: dict[str, Origin] = {}
    settings = Settings()
    if where.exists() or environ.get(CONFIG_VARIABLE):
        settings = read(where)
        origins = {name: "file" for name, _ in _flat(_raw(where))}
    if runs := environ.get(RUNS_VARIABLE):
        settings, origins["runs"] = msgspec.structs.replace(settings, runs=runs), "environment"
    if environ.get("NO_COLOR"):
        settings, origins["theme"] = msgspec.structs.replace(settings, theme="mono"), "environment"
    for name, value in (options or {}).items():
        if value is not None:
            settings, origins[name] = msgspec.structs.replace(settings, **{name: value}), "option"
    return Effective(where, settings, origins)


def read(where: Path) -> Settings:
    """Read and check a file, all but the keys, which the table of bindings knows: `check_keys`. Raises ConfigError."""
    settings = toml_file.convert(_raw(where), Settings, str(where), ConfigError, allowed=lambda: _ALLOWED)
    if settings.smoothing not in WEIGHTS:
        given = f"{settings.smoothing:g}"
        raise ConfigError(f"{where}: smoothing: {given} is not allowed; allowed: {_ALLOWED['smoothing']}")
    if settings.runs:
        runs = os.path.expanduser(settings.runs)
        if not os.path.isabs(runs):
            raise ConfigError(f"{where}: runs: '{settings.runs}' is not allowed; allowed: {_ALLOWED['runs']}")
        settings = msgspec.structs.replace(settings, runs=runs)
    if settings.notify.on_alarm:
        try:
            words(settings.notify.on_alarm)
        except ValueError as error:
            raise ConfigError(f"{where}: notify.on_alarm: {error}") from error
    return settings


def check_keys(found: Effective) -> None:
    """Check the map of keys against the table of bindings. Raises ConfigError."""
    if not found.settings.keys:
        return
    from console.settings.keymap import KeymapError, mapped

    try:
        mapped(found.settings.keys)
    except KeymapError as error:
        raise ConfigError(f'{found.path}: keys."{error.id}": {error}') from error


def _raw(where: Path) -> dict[str, Any]:
    return toml_file.parse(toml_file.read(where, ConfigError), str(where), ConfigError)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
