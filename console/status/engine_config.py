"""How engines are set, and what differs between them: a table of words, and groups of equal engines. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from driftline.catalog.fixes import BY_ID
from driftline.frames import EngineState, FixState
from driftline.text import natural, spans

_SETTINGS: Final = (
    "logprobs", "head", "body", "prefix cache", "async scheduling", "cascade attention", "sampling defaults",
)  # fmt: skip
"""What a joined engine's line of settings is made of: each word with its value, then `; ` (`head X, body Y`)."""
_RUNNER: Final = " model runner"
NOT_REPORTED: Final = "not reported"


def config(engine: EngineState, fixes: Mapping[str, FixState]) -> dict[str, str]:
    """Everything by which an engine may differ from another: whose it is, versions, settings, fixes as it reports them.

    Name, node, process, weights and load are not settings: they differ by nature.
    """
    found = {"framework": engine.framework, "joined by": engine.via, "backend": engine.backend, "vLLM": engine.vllm}
    found |= settings(engine.settings)
    for fix in BY_ID:
        if (state := fixes.get(fix)) is not None:
            own = next((one.effective for one in state.engines if one.engine == engine.engine), "")
            found[fix] = own
    return {key: value for key, value in found.items() if value or key in BY_ID}


def settings(line: str) -> dict[str, str]:
    """An engine's line of settings by word; what is not known has the key `also`."""
    found: dict[str, str] = {}
    also: list[str] = []
    for part in filter(None, line.split("; ")):
        if part.endswith(_RUNNER):
            found["model runner"] = part.removesuffix(_RUNNER)
            continue
        key = next((one for one in _SETTINGS if part.startswith(f"{one} ")), "")
        if not key:
            also.append(part)
            continue
        value = part.removeprefix(f"{key} ")
        if key == "head":
            value, _, body = value.partition(", body ")
            found |= {"body": body} if body else {}
        found[key] = value
    return found | ({"also": "; ".join(also)} if also else {})


class Group(NamedTuple):
    """Engines that are set alike, in natural order, with their values of what differs between the groups."""

    engines: tuple[str, ...]
    values: dict[str, str]

    @property
    def names(self) -> str:
        """`engine-0 to engine-4, engine-7`."""
        return ", ".join(spans(self.engines))


class Differences(NamedTuple):
    """`keys` have two values or more among the groups, the largest group first; `same` is what all agree on.

    `silent` says which engines do not report what, by engines: whether they differ there is not known.
    """

    engines: int
    keys: tuple[str, ...]
    groups: tuple[Group, ...]
    same: dict[str, str]
    silent: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()

    def counts(self, key: str) -> list[tuple[str, int]]:
        """The values of a key with the number of engines that have each, the commonest first."""
        counted: dict[str, int] = {}
        for group in self.groups:
            counted[group.values[key]] = counted.get(group.values[key], 0) + len(group.engines)
        return sorted(counted.items(), key=lambda one: (-one[1], one[0]))

    def line(self, key: str) -> str:
        """`logprobs: 5 of 8 processed_logprobs; 3 of 8 raw_logprobs`."""
        return f"{key}: " + "; ".join(f"{count} of {self.engines} {value}" for value, count in self.counts(key))


def differences(engines: Mapping[str, EngineState], fixes: Mapping[str, FixState]) -> Differences:
    """What differs between the engines that are up, and only that; no keys where all are set alike."""
    alive = sorted((name for name, engine in engines.items() if engine.phase != "dead"), key=natural)
    configs = {name: config(engines[name], fixes) for name in alive}
    keys = list(dict.fromkeys(key for one in configs.values() for key in one))
    reported = {key: {one[key] for one in configs.values() if one.get(key)} for key in keys}
    differing = tuple(key for key in keys if len(reported[key]) > 1)
    grouped: dict[tuple[str, ...], list[str]] = {}
    for name in alive:
        grouped.setdefault(tuple(configs[name].get(key) or NOT_REPORTED for key in differing), []).append(name)
    groups = [Group(tuple(names), dict(zip(differing, made, strict=True))) for made, names in grouped.items()]
    groups.sort(key=lambda group: (-len(group.engines), natural(group.engines[0])))
    silent: dict[tuple[str, ...], list[str]] = {}
    for key in keys:
        if key not in differing and (missing := tuple(name for name in alive if not configs[name].get(key))):
            silent.setdefault(missing, []).append(key)
    same = {key: min(reported[key]) for key in keys if len(reported[key]) == 1}
    said = tuple((names, tuple(missing)) for names, missing in silent.items())
    return Differences(len(alive), differing, tuple(groups), same, said)


def joined_as(engine: EngineState) -> str:
    """Who speaks for an engine and how: `plugin in verl 0.6.0, key engine-*`; "" where nothing of it is reported."""
    key = engine.key.removeprefix("producer ")
    where = f" in {engine.framework}" if engine.framework else ""
    parts = [f"{engine.via or 'reported'}{where}" if engine.via or where else "", f"key {key}" if key else ""]
    return ", ".join(part for part in parts if part)


def document(found: Differences) -> dict[str, Any]:
    """For programs: {`engines`, `keys`, `groups` [{`engines`, `values`}], `same`, `silent` [{`engines`, `keys`}]}."""
    groups = [{"engines": list(group.engines), "values": group.values} for group in found.groups]
    silent = [{"engines": list(names), "keys": list(keys)} for names, keys in found.silent]
    return {
        "engines": found.engines, "keys": list(found.keys), "groups": groups, "same": found.same, "silent": silent,
    }  # fmt: skip


def lines(found: Differences) -> list[str]:
    """The same as text: a line a key, a line a group, a line for what is not reported."""
    if found.engines < 2:
        return ["one engine, or none, has reported: there is nothing to compare"]
    made = [found.line(key) for key in found.keys] or ["nothing differs: all are set alike"]
    if found.keys:
        for group in found.groups:
            values = "; ".join(f"{key} {value}" for key, value in group.values.items())
            made.append(f"{len(group.engines)} of {found.engines}: {group.names}: {values}")
    return [*made, *(unreported(found, names, keys) for names, keys in found.silent)]


def unreported(found: Differences, names: Sequence[str], keys: Sequence[str]) -> str:
    """`not reported by 2 of 8 (engine-6, engine-7): head, body`; without the names where it is all of them."""
    which = f" ({', '.join(spans(names))})" if len(names) < found.engines else ""
    return f"not reported by {len(names)} of {found.engines}{which}: {', '.join(keys)}"
