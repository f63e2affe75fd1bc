"""Types of custom resources from the crates of kube-custom-resources-rs, as declarations of TypeScript.

The crates are generated from the CRDs of the projects. No package of npm has these groups in the version that is used here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

STRUCT = re.compile(r"^pub struct (\w+) \{\n(.*?)^\}", re.S | re.M)
ENUM = re.compile(r"^pub enum (\w+) \{\n(.*?)^\}", re.S | re.M)
# A field or a value with the attributes above it.
FIELD = re.compile(r"((?:^ +#\[.*\]\n)*)^ +pub (?:r#)?(\w+): (.+),$", re.M)
VALUE = re.compile(r"((?:^ +#\[.*\]\n)*)^ +(\w+),$", re.M)
RENAME = re.compile(r'rename = "((?:[^"\\]|\\.)*)"')
PRIMITIVES = {"String": "string", "bool": "boolean", "IntOrString": "string | number"}


class BindingError(Exception):
    """A crate of another form than the one that this module reads."""


def typescript(rust: str, known: set[str]) -> str:
    """A type of TypeScript for one of Rust."""
    if found := re.fullmatch(r"(?:Option|Box)<(.+)>", rust):
        return typescript(found[1], known)
    if found := re.fullmatch(r"Vec<(.+)>", rust):
        return f"({typescript(found[1], known)})[]"
    if found := re.fullmatch(r"(?:BTreeMap|HashMap)<String, (.+)>", rust):
        return f"Record<string, {typescript(found[1], known)}>"
    if re.fullmatch(r"[iuf]\d+", rust):
        return "number"
    if rust in {"serde_json::Value", "Condition"}:
        return "any"
    if rust in known:
        return rust
    if rust not in PRIMITIVES:
        raise BindingError(f"the type {rust} is not known")
    return PRIMITIVES[rust]


def declarations(source: str) -> Iterator[str]:
    """The interfaces and unions of a file."""
    # Comments can contain braces and attributes.
    code = re.sub(r"^ *//.*\n", "", source, flags=re.M)
    known = {found[1] for pattern in (STRUCT, ENUM) for found in pattern.finditer(code)}
    for found in STRUCT.finditer(code):
        fields = list(FIELD.finditer(found[2]))
        if len(fields) != len(re.findall(r"^ +pub ", found[2], re.M)):
            raise BindingError(f"{found[1]} has a field of another form")
        lines = []
        for attributes, name, rust in (field.groups() for field in fields):
            renamed = RENAME.search(attributes)
            optional = "?" if rust.startswith("Option<") or "default" in attributes else ""
            lines.append(f'  "{renamed[1] if renamed else name}"{optional}: {typescript(rust, known)};')
        yield f"export interface {found[1]} {{\n" + "\n".join(lines) + "\n}\n"
    for found in ENUM.finditer(code):
        values = []
        for attributes, name in (value.groups() for value in VALUE.finditer(found[2])):
            renamed = RENAME.search(attributes)
            values.append(f'"{renamed[1] if renamed else name}"')
        if not values or len(values) != len(re.findall(r"^ +\w", found[2], re.M)):
            raise BindingError(f"{found[1]} has a value of another form")
        yield f"export type {found[1]} = {' | '.join(values)};\n"


def module(file: Path) -> str:
    """The declarations of a file of a crate."""
    return "".join(declarations(file.read_text()))
