"""Terraform's values on the wire: MessagePack, with unknown values as an extension.

Only what Terraform's types need: no timestamps, and no other extension.
"""

from __future__ import annotations

import struct
from typing import Any


class Unknown:
    """A value that is known after an apply."""


UNKNOWN = Unknown()


def pack(value: Any) -> bytes:
    if value is None:
        return b"\xc0"
    if isinstance(value, Unknown):
        return b"\xd4\x00\x00"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return b"\xd3" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        content = value.encode()
        return b"\xdb" + struct.pack(">I", len(content)) + content
    if isinstance(value, list):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(pack(item) for item in value)
    if isinstance(value, dict):
        return b"\xdf" + struct.pack(">I", len(value)) + b"".join(pack(key) + pack(item) for key, item in value.items())
    raise TypeError(f"no value of Terraform: {value!r}")


# First byte to format and kind, for values of a fixed size and for lengths of a fixed size.
_FIXED = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
_LENGTH = {
    0xC4: (">B", "bytes"), 0xC5: (">H", "bytes"), 0xC6: (">I", "bytes"),
    0xC7: (">B", "ext"), 0xC8: (">H", "ext"), 0xC9: (">I", "ext"),
    0xD9: (">B", "str"), 0xDA: (">H", "str"), 0xDB: (">I", "str"),
    0xDC: (">H", "list"), 0xDD: (">I", "list"),
    0xDE: (">H", "dict"), 0xDF: (">I", "dict"),
}  # fmt: skip


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.position = 0

    def take(self, size: int) -> bytes:
        self.position += size
        return self.content[self.position - size : self.position]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def value(self) -> Any:
        first = self.take(1)[0]
        if first <= 0x7F:
            return first
        if first >= 0xE0:
            return first - 0x100
        if first in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[first]
        if first in _FIXED:
            return self.number(_FIXED[first])
        if 0xD4 <= first <= 0xD8:
            self.take(1 + (1 << first - 0xD4))
            return UNKNOWN
        if first in _LENGTH:
            form, kind = _LENGTH[first]
            return self.sized(kind, self.number(form))
        if first <= 0x8F:
            return self.sized("dict", first & 0x0F)
        if first <= 0x9F:
            return self.sized("list", first & 0x0F)
        return self.sized("str", first & 0x1F)

    def sized(self, kind: str, size: int) -> Any:
        if kind == "str":
            return self.take(size).decode()
        if kind == "bytes":
            return self.take(size)
        if kind == "ext":
            self.take(1 + size)
            return UNKNOWN
        if kind == "list":
            return [self.value() for _ in range(size)]
        return {self.value(): self.value() for _ in range(size)}


def unpack(content: bytes) -> Any:
    return _Reader(content).value()
