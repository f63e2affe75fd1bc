"""Replaces the release id in a program by one that differs in its last character: rename.py OLD NEW SOURCE TARGET.

The compiler writes an id of five characters into instructions (x86-64): mov byte [rax+4], mov dword [rax].
"""

from __future__ import annotations

import sys


def main() -> None:
    old, new, source, target = (argument.encode() for argument in sys.argv[1:])
    assert len(old) == len(new) and old[:-1] == new[:-1], "the ids must differ in the last character only"
    with open(source, "rb") as file:
        program = file.read()
    program = program.replace(old, new)
    if len(old) == 5:
        program = program.replace(b"\xc6\x40\x04" + old[4:] + b"\xc7\x00" + old[:4], b"\xc6\x40\x04" + new[4:] + b"\xc7\x00" + old[:4])
    with open(target, "wb") as file:
        file.write(program)


main()
