"""Replaces the release id in a program by one that differs in its last character: rename.py OLD NEW SOURCE TARGET.

The compiler writes a short id into instructions (x86-64): for five characters mov byte [rax+4], mov dword [rax]; for six to
eight mov dword [rax+n-4], mov dword [rax], whose words overlap; for nine to twelve, such as `development`, mov rcx, id[..8];
mov [rax], rcx; mov dword [rax+n-4].
"""

from __future__ import annotations

import sys


def moves(release: bytes) -> bytes | None:
    """The instructions that write the id; none for other lengths."""
    first = b"\xc7\x00" + release[:4]
    if len(release) == 5:
        return b"\xc6\x40\x04" + release[4:] + first
    if 6 <= len(release) <= 8:
        return b"\xc7\x40" + bytes([len(release) - 4]) + release[-4:] + first
    if 9 <= len(release) <= 12:
        return release[:8] + b"\x48\x89\x08\xc7\x40" + bytes([len(release) - 4]) + release[-4:]
    return None


def main() -> None:
    old, new, source, target = (argument.encode() for argument in sys.argv[1:])
    assert len(old) == len(new) and old[:-1] == new[:-1], "the ids must differ in the last character only"
    with open(source, "rb") as file:
        program = file.read()
    program = program.replace(old, new)
    if (before := moves(old)) and (after := moves(new)):
        program = program.replace(before, after)
    with open(target, "wb") as file:
        file.write(program)


main()
