#!/usr/bin/env python3
"""Checks Terraform's files against the schemas of their providers.

    check.py --names FOLDER…              the names of providers, resources and data sources that the files use
    check.py SCHEMAS FOLDER…              SCHEMAS: a folder with PROVIDER.json, made by schemas.py

For every module (a folder):
- Each block's attributes exist, can be set, and have a value of the right kind; required ones are present.
- Each reference leads to something that is declared, and to an attribute that exists.
- Each variable has a type and a description, and is used; each output has a description.
- The version of each provider is exactly that of its schema.
Values that only a run can know, such as the result of a function, are not checked; `make test-terraform` evaluates them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hcl2
from expressions import Reference, is_expression, references, sole_reference
from schemas import Attribute, Block, Nested, Type

META = {"count", "for_each", "provider", "depends_on", "lifecycle", "dynamic"}
HIDDEN = {"__is_block__", "__comments__", "__inline_comments__", "__start_line__", "__end_line__"}
TOP = {"terraform", "provider", "variable", "locals", "resource", "data", "ephemeral", "output", "moved", "check", "removed", "import"}


@dataclass
class Item:
    """A block such as `resource "aws_vpc" "main"`."""

    file: str
    kind: str
    labels: tuple[str, ...]
    body: dict[str, Any]

    @property
    def address(self) -> str:
        return ".".join([*([] if self.kind == "resource" else [self.kind]), *self.labels])


@dataclass
class Module:
    """The files of a folder."""

    folder: Path
    items: list[Item] = field(default_factory=list)

    def of(self, *kinds: str) -> Iterator[Item]:
        return (item for item in self.items if item.kind in kinds)

    def find(self, kind: str, *labels: str) -> Item | None:
        return next((item for item in self.of(kind) if item.labels == labels), None)

    def locals(self) -> dict[str, Any]:
        return {name: value for item in self.of("locals") for name, value in _settings(item.body)}


def _settings(body: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in body.items() if name not in HIDDEN)


def unquote(text: str) -> str:
    return text[1:-1] if text.startswith('"') and text.endswith('"') else text


def _blocks(value: Any) -> list[dict[str, Any]] | None:
    """The bodies of a nested block, if the value is one."""
    if isinstance(value, list) and value and all(isinstance(item, dict) and item.get("__is_block__") for item in value):
        return value
    return None


def _labeled(value: dict[str, Any], labels: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    if value.get("__is_block__"):
        yield labels, value
        return
    for name, inner in _settings(value):
        yield from _labeled(inner, (*labels, unquote(name)))


def load(folder: Path) -> Module:
    module = Module(folder)
    for file in sorted(folder.glob("*.tf")):
        for kind, values in _settings(hcl2.loads(file.read_text())):
            for value in values:
                module.items += [Item(str(file), kind, labels, body) for labels, body in _labeled(value, ())]
    return module


def names(module: Module) -> set[str]:
    found = {f"{item.kind}.{item.labels[0]}" for item in module.of("resource", "data", "ephemeral")}
    return found | {f"provider.{name}" for name in _required_providers(module)}


def _required_providers(module: Module) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for item in module.of("terraform"):
        for body in item.body.get("required_providers", []):
            found.update(_settings(body))
    return found


class Check:
    """The check of one module. `findings` are its faults."""

    def __init__(self, module: Module, schemas: dict[str, Any]) -> None:
        self.module = module
        self.schemas = schemas
        self.findings: list[str] = []

    def report(self, item: Item, text: str) -> None:
        self.findings.append(f"{item.file}: {item.address}: {text}")

    def schema(self, kind: str, name: str) -> Block | None:
        provider = self.schemas.get(name.partition("_")[0])
        found: Block | None = provider["schemas"].get(f"{kind}.{name}") if provider else None
        return found

    def run(self) -> list[str]:
        seen: set[tuple[str, tuple[str, ...]]] = set()
        for item in self.module.items:
            if item.kind not in TOP:
                self.report(item, "is a block of an unknown kind")
            if item.labels and (item.kind, item.labels) in seen:
                self.report(item, "is declared twice")
            seen.add((item.kind, item.labels))
            if item.kind in ("resource", "data", "ephemeral", "provider"):
                if (schema := self.schema(item.kind, item.labels[0])) is None:
                    self.report(item, "is not in the provider's schema")
                else:
                    self.block(item, schema, item.body, "", META)
            self.references(item)
        self.conventions()
        self.pins()
        return self.findings

    # --- Names, kinds and presence ---------------------------------------------------------------------------------------
    def block(self, item: Item, schema: Block, body: dict[str, Any], path: str, meta: set[str]) -> None:
        present: dict[str, int] = {}
        for name, value in _settings(body):
            if name in schema["blocks"] and (bodies := _blocks(value)) is not None:
                present[name] = present.get(name, 0) + len(bodies)
                for inner in bodies:
                    self.block(item, schema["blocks"][name]["block"], inner, f"{path}{name}.", set())
            elif name == "dynamic":
                present |= {label: 1 for label in self.dynamic(item, schema, value, path)}
            elif name in schema["attributes"]:
                present[name] = 1
                self.attribute(item, schema["attributes"][name], value, path + name)
            elif name not in meta:
                self.report(item, f"{path}{name} does not exist")
        for name, attribute in schema["attributes"].items():
            if attribute["required"] and name not in present:
                self.report(item, f"{path}{name} is required and missing")
        for name, nested in schema["blocks"].items():
            self.count(item, nested, path + name, present.get(name, 0))

    def count(self, item: Item, nested: Nested, path: str, number: int) -> None:
        if nested["required"] and number == 0:
            self.report(item, f"the block {path} is required and missing")
        if number > nested.get("max", number):
            self.report(item, f"the block {path} may occur only once")

    def dynamic(self, item: Item, schema: Block, value: Any, path: str) -> Iterator[str]:
        for labels, body in (found for entry in value for found in _labeled(entry, ())):
            name = labels[0]
            if name not in schema["blocks"]:
                self.report(item, f"the block {path}{name} does not exist")
                continue
            yield name
            for content in body.get("content", []):
                self.block(item, schema["blocks"][name]["block"], content, f"{path}{name}.", set())

    def attribute(self, item: Item, attribute: Attribute, value: Any, path: str) -> None:
        if attribute["computed"] and not (attribute["optional"] or attribute["required"]):
            self.report(item, f"{path} is computed and cannot be set")
        elif _blocks(value) is not None:
            self.report(item, f"{path} is an attribute, not a block: write {path} = …")
        elif fault := self.fault(attribute["type"], value):
            self.report(item, f"{path} {fault}")
        elif attribute["required"] and value is None:
            self.report(item, f"{path} is required and null")

    def fault(self, wanted: Type, value: Any) -> str | None:
        """Why the value does not have the type, if that can be seen."""
        if isinstance(value, str) and is_expression(value):
            reference = sole_reference(value)
            found = self.type_of(reference) if reference else None
            return None if found is None or _convertible(found, wanted) else f"must be {_name(wanted)}; {reference} is {_name(found)}"
        if value is None or wanted == "dynamic":
            return None
        if isinstance(wanted, str):
            kinds: dict[str, tuple[type, ...]] = {"string": (str,), "number": (int, float), "bool": (bool,)}
            if isinstance(value, kinds[wanted]) and not (wanted == "number" and isinstance(value, bool)):
                return None
            return f"must be {_name(wanted)}: {json.dumps(value)}"
        if wanted[0] in ("list", "set"):
            if not isinstance(value, list):
                return f"must be {_name(wanted)}: {json.dumps(value)}"
            return next((fault for entry in value if (fault := self.fault(wanted[1], entry))), None)  # type: ignore[arg-type]
        if not isinstance(value, dict):
            return f"must be {_name(wanted)}: {json.dumps(value)}"
        members = wanted[1] if wanted[0] == "object" and isinstance(wanted[1], dict) else None
        for key, entry in _settings(value):
            if members is not None and unquote(key) not in members:
                return f"has no member {unquote(key)}"
            if fault := self.fault(members[unquote(key)] if members is not None else wanted[1], entry):  # type: ignore[arg-type]
                return f"{unquote(key)}: {fault}"
        return None

    # --- References ------------------------------------------------------------------------------------------------------
    def references(self, item: Item) -> None:
        bound = frozenset(_iterators(item.body))
        for reference in references({key: value for key, value in item.body.items() if key not in HIDDEN}, bound):
            if fault := self.unresolved(item, reference):
                self.report(item, f"{reference} {fault}")

    def unresolved(self, item: Item, reference: Reference) -> str | None:
        root, steps = reference.root, reference.steps
        if root in ("each", "count", "self", "path", "terraform"):
            needed = {"each": "for_each", "count": "count"}.get(root)
            return f"needs {needed}" if needed and needed not in item.body else None
        if root == "var":
            return None if steps and self.module.find("variable", steps[0]) else "is not declared"
        if root == "local":
            return None if steps and steps[0] in self.module.locals() else "is not declared"
        kind = root if root in ("data", "ephemeral") else "resource"
        labels = steps[:2] if kind != "resource" else (root, *steps[:1])
        # Arguments such as `ignore_changes = [engine_version]` name the block's own attributes; `type = string` is a keyword.
        if kind == "resource" and ("_" not in root or not steps):
            return None if self.is_keyword(item, reference) else "is not declared"
        target = self.module.find(kind, *labels)
        if target is None:
            return "is not declared"
        schema = self.schema(kind, labels[0])
        rest = steps[2:] if kind != "resource" else steps[1:]
        many = "count" in target.body or "for_each" in target.body
        if many != (rest[:1] == ("[]",)) and rest:
            return "needs an index, because the block has count or for_each" if many else "has an index, and the block neither count nor for_each"
        try:
            if schema is not None:
                _walk(schema, rest[1:] if many else rest)
        except KeyError as error:
            return f"leads to {error.args[0]}, which does not exist"
        return None

    def is_keyword(self, item: Item, reference: Reference) -> bool:
        if item.kind == "variable":
            return not reference.steps and reference.root in ("string", "number", "bool", "any")
        lifecycle = item.body.get("lifecycle", [])
        ignored = [text for body in lifecycle for text in (body.get("ignore_changes") or []) if isinstance(text, str)]
        if reference.root not in ignored:
            return False
        schema = self.schema(item.kind, item.labels[0])
        return schema is not None and (reference.root in schema["attributes"] or reference.root in schema["blocks"])

    def type_of(self, reference: Reference) -> Type | None:
        """The type of a reference, if it is declared."""
        root, steps = reference.root, reference.steps
        if root == "var":
            variable = self.module.find("variable", steps[0]) if steps else None
            return _declared_type(variable.body.get("type")) if variable and len(steps) == 1 else None
        if root == "local" and len(steps) == 1:
            value = self.module.locals().get(steps[0])
            if isinstance(value, str) and not is_expression(value):
                return "string"
            return None
        kind = root if root in ("data", "ephemeral") else "resource"
        labels = steps[:2] if kind != "resource" else (root, *steps[:1])
        rest = steps[2:] if kind != "resource" else steps[1:]
        target, schema = self.module.find(kind, *labels), self.schema(kind, labels[0]) if labels else None
        if target is None or schema is None:
            return None
        try:
            return _walk(schema, rest[1:] if rest[:1] == ("[]",) and ("count" in target.body or "for_each" in target.body) else rest)
        except KeyError:
            return None

    # --- Conventions -----------------------------------------------------------------------------------------------------
    def conventions(self) -> None:
        for item in self.module.of("variable"):
            for needed in ("description", "type"):
                if needed not in item.body:
                    self.report(item, f"has no {needed}")
            # Its own validation is no use.
            used = (found for other in self.module.items if other is not item for found in references(other.body))
            if not any(found.root == "var" and found.steps[:1] == item.labels for found in used):
                self.report(item, "is not used")
        for item in self.module.of("output"):
            if "description" not in item.body:
                self.report(item, "has no description")

    def pins(self) -> None:
        providers = _required_providers(self.module)
        for item in self.module.of("terraform"):
            if "required_version" not in item.body:
                self.report(item, "has no required_version")
        for name, settings in providers.items():
            wanted = self.schemas.get(name, {}).get("version")
            version = unquote(str(settings.get("version", "")))
            if version != wanted:
                self.findings.append(f"{self.module.folder}: provider {name} {version or 'without a version'}: the schema is that of {wanted}")


def _iterators(body: Any) -> Iterator[str]:
    """The names that `dynamic` blocks bind."""
    if isinstance(body, dict):
        for name, value in _settings(body):
            if name == "dynamic":
                yield from (labels[0] for entry in value for labels, _ in _labeled(entry, ()))
            yield from _iterators(value)
    elif isinstance(body, list):
        for entry in body:
            yield from _iterators(entry)


def _walk(schema: Block, steps: tuple[str, ...]) -> Type | None:
    """The type at the end of the steps. Raises KeyError with the step that does not exist."""
    if not steps:
        return None
    name, rest = steps[0], steps[1:]
    if name in schema["blocks"]:
        return _walk(schema["blocks"][name]["block"], rest[1:] if rest[:1] == ("[]",) else rest)
    found: Type = schema["attributes"][name]["type"]
    for step in rest:
        if isinstance(found, str) or (step != "[]" and found[0] in ("list", "set") and not _is_splat(rest)):
            if found == "dynamic":
                return None
            raise KeyError(step)
        if step == "[]":
            found = found[1]  # type: ignore[assignment]
        elif isinstance(found[1], dict):
            found = found[1][step]
        elif found[0] == "map":
            found = found[1]
    return found


def _is_splat(steps: tuple[str, ...]) -> bool:
    return "[]" in steps


def _declared_type(text: object) -> Type | None:
    """The type of a variable: `${string}`, `${set(string)}`."""
    if not isinstance(text, str):
        return None
    text = text.removeprefix("${").removesuffix("}")
    if text in ("string", "number", "bool"):
        return text
    kind, _, inner = text.removesuffix(")").partition("(")
    found = _declared_type(inner) if kind in ("list", "set", "map") else None
    return [kind, found] if found is not None else None


def _convertible(found: Type, wanted: Type) -> bool:
    """Whether Terraform converts the type by itself."""
    if "dynamic" in (found, wanted):
        return True
    if isinstance(found, str) or isinstance(wanted, str):
        return isinstance(found, str) and isinstance(wanted, str) and not {found, wanted} == {"number", "bool"}
    sequence = {"list", "set"}
    if found[0] in sequence and wanted[0] in sequence:
        return _convertible(found[1], wanted[1])  # type: ignore[arg-type]
    return found[0] == wanted[0] or {found[0], wanted[0]} == {"map", "object"}


def _name(kind: Type) -> str:
    if isinstance(kind, str):
        return {"string": "a string", "number": "a number", "bool": "true or false"}.get(kind, "any value")
    inner = "" if isinstance(kind[1], dict) else f" of {kind[1] if isinstance(kind[1], str) else kind[1][0]}"
    return f"a {kind[0]}{inner}"


def main(arguments: list[str]) -> int:
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 64
    modules = [load(Path(folder)) for folder in arguments[1:]]
    if empty := [module for module in modules if not module.items]:
        print(f"error: {empty[0].folder} has no Terraform file", file=sys.stderr)
        return 1
    if arguments[0] == "--names":
        print("\n".join(sorted(set().union(*(names(module) for module in modules)))))
        return 0
    schemas = {file.stem: json.loads(file.read_text()) for file in Path(arguments[0]).glob("*.json")}
    findings = [finding for module in modules for finding in Check(module, schemas).run()]
    print("\n".join(findings), end="\n" if findings else "")
    print(f"{sum(len(module.items) for module in modules)} blocks in {len(modules)} modules", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
