"""Which environments there can be, and what each needs of the machine and of the start of its vLLM. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

PYTHON: Final = (3, 11)
"""The Python that the pins are for, and that Ray wants to be the same in the driver and in every actor."""


@dataclass(frozen=True)
class Known:
    """An environment that can be made.

    `disk_gb` is its size as measured, with the build of torch that its pins name, `download_gb` about what pip fetches
    for it, both in 10^9 bytes. `preload` names libraries that this vLLM wants in LD_PRELOAD on a CPU. `glibcxx` is
    the version of libstdc++'s symbols that its compiled part asks for, "" where every supported system has it.
    `variables` and `arguments` are what vLLM must be given to run on a CPU at all.
    """

    version: str
    torch: str
    disk_gb: float
    download_gb: float
    preload: tuple[str, ...] = ()
    glibcxx: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As it is asked for."""
        return f"vllm-{self.version}"


_WHOLE_GIB: Final = {"VLLM_CPU_KVCACHE_SPACE": "1"}
"""Versions before 0.20 take the size of a CPU's KV cache from here alone, in whole GiB."""

_LIST: Final = (
    Known(
        "0.8.5.post2", "2.6.0", 6.8, 3.0, glibcxx="3.4.32",
        variables={**_WHOLE_GIB, "VLLM_USE_V1": "0", "VLLM_CPU_OMP_THREADS_BIND": "all"},
        arguments={"block_size": 16},
    ),
    Known("0.18.1", "2.10.0", 8.9, 4.7, preload=("libiomp5", "libtcmalloc"), variables=_WHOLE_GIB),
    # With "nobind" its own message about the binding fails: IndexError in vllm/utils/ompmultiprocessing.py.
    Known("0.20.2", "2.11.0", 6.4, 3.2, variables={"VLLM_CPU_OMP_THREADS_BIND": "auto"}),
    Known("0.24.0", "2.11.0", 6.4, 3.2),
    Known("0.25.1", "2.11.0", 6.7, 3.2),
    Known("0.28.0", "2.13.0", 3.9, 1.0),
    Known("0.32.0", "2.13.0", 3.9, 1.0),
)  # fmt: skip
ALL: Final = {one.name: one for one in _LIST}
"""By name, oldest first."""


_SHORT: Final = {"0.8.5": "0.8.5.post2"}
"""A release that does not work by itself, and the one that took its place."""


def find(name: str) -> Known | None:
    """The environment of this name; `0.18.1` is short for `vllm-0.18.1`."""
    version = name.removeprefix("vllm-")
    return ALL.get(f"vllm-{_SHORT.get(version, version)}")


def unknown(name: str) -> str:
    """The sentence for a name that is none."""
    return f"no environment is called '{name}'; there are {', '.join(ALL)}"
