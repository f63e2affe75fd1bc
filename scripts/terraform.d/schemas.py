#!/usr/bin/env python3
"""Reads the schemas of Terraform's providers from the npm packages @cdktf/provider-* and @cdktn/provider-*.

    schemas.py PACKAGE.tgz OUTPUT.json NAME…     NAME: resource.aws_vpc, data.aws_vpc, ephemeral.aws_…, provider.aws

Each package is generated from a provider's schema. Its JavaScript embeds the TypeScript source (a source map), which has
for every attribute the Terraform name, the type, and whether it is computed, optional or required. The output has them in
the form of `terraform providers schema -json`, but shorter: `Block` below.

- Only the named resources are read: a package has up to 1,500.
- A name that the package lacks, and a source of another form, are errors. They are never an empty schema.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import tarfile
from pathlib import Path
from typing import NotRequired, TypeAlias, TypedDict

# A type as Terraform writes it in JSON: "string", ["list", "string"], ["object", {"name": "string"}].
Type: TypeAlias = "str | list[str | Type | dict[str, Type]]"


class Flags(TypedDict):
    required: bool
    optional: bool
    computed: bool


class Attribute(Flags):
    type: Type


class Nested(TypedDict):
    nesting: str
    required: bool
    max: NotRequired[int]
    block: Block


class Block(TypedDict):
    attributes: dict[str, Attribute]
    blocks: dict[str, Nested]


class SchemaError(Exception):
    """A package of another form than expected."""


_MAP = re.compile(r"sourceMappingURL=data:application/json;base64,(\S+)")
_SECTION = re.compile(r"^export (?:declare )?(?:abstract )?(class|interface|function) (\w+)", re.MULTILINE)
_MAIN = re.compile(r"^export class (\w+) extends cdkt[fn]\.Terraform(?:Resource|DataSource|Provider|EphemeralResource) \{", re.MULTILINE)
_MEMBER = re.compile(
    r"// (?P<name>\w+) - computed: (?P<computed>\w+), optional: (?P<optional>\w+), required: (?P<required>\w+)\n"
    r"\s*(?:private _\w+\??(?:: (?P<type>[^;=]+)| = new (?:cdkt[fn]\.)?(?P<class>\w+)\(this, \"\w+\"(?:, (?P<set>true|false))?\))"
    r"|public get \w+\(\)(?:: [^{]+)? \{\s*return (?P<getter>[^;]+);)"
)
_ENTRY = re.compile(r'^ +(\w+): \{\s+value: [^\n]+\n\s+isBlock: (true|false),\s+type: "(\w+)",\s+storageClassType: "(\w+)"', re.MULTILINE)
# A property of an interface: its documentation ends with the Terraform name.
_PROPERTY = re.compile(r"#(\w+) \w+#\1\}(?:(?!\*/).)*\*/\n\s+readonly \w+(\?)?: ([^;]+);", re.DOTALL)
_BLOCK_DOC = re.compile(r"^ +\* (\w+) block$", re.MULTILINE)
_VERSION = re.compile(r"providerVersion: '([^']+)'")
_SIMPLE: dict[str, Type] = {"string": "string", "number": "number", "boolean": "bool", "any": "dynamic"}
_GETTERS: dict[str, Type] = {
    "String": "string",
    "Number": "number",
    "Boolean": "bool",
    "List": ["list", "string"],
    "NumberList": ["list", "number"],
    "StringMap": ["map", "string"],
    "NumberMap": ["map", "number"],
    "BooleanMap": ["map", "bool"],
    "AnyMap": ["map", "dynamic"],
}


def typescript(javascript: str) -> str:
    """The source that a generated file embeds."""
    match = _MAP.search(javascript)
    if not match:
        raise SchemaError("has no source map")
    sources = json.loads(base64.b64decode(match.group(1))).get("sourcesContent") or []
    if len(sources) != 1:
        raise SchemaError("its source map has no source")
    return str(sources[0])


def _plain(text: str) -> str:
    """The type without what the generator adds to each."""
    return re.sub(r"\| cdkt[fn]\.IResolvable", "", text).strip().strip("()").strip()


def simple_type(text: str, kind: str) -> Type:
    """The type of `string[]` or `{ [key: string]: string }`; `kind` is set, list, map or simple."""
    text = _plain(text)
    if text in _SIMPLE:
        return _SIMPLE[text]
    if text.endswith("[]"):
        return ["set" if kind == "set" else "list", simple_type(text[:-2], "simple")]
    if match := re.fullmatch(r"\{ ?\[key: string\]: (.+?) ?\}", text):
        return ["map", simple_type(match.group(1), "simple")]
    raise SchemaError(f"has a type of an unknown form: {text}")


def _attribute(kind: Type, flags: Flags) -> Attribute:
    return Attribute(type=kind, required=flags["required"], optional=flags["optional"], computed=flags["computed"])


def getter_type(text: str) -> Type:
    """The type of a computed attribute, from `this.getStringAttribute('arn')`."""
    if not (match := re.search(r"this\.get(\w+)Attribute\(", text)) or match.group(1) not in _GETTERS:
        if "interpolationForAttribute" in text:
            return "dynamic"
        raise SchemaError(f"has a getter of an unknown form: {text}")
    found = _GETTERS[match.group(1)]
    return ["set", *found[1:]] if "tolist(" in text and isinstance(found, list) else found


class Source:
    """One generated file."""

    def __init__(self, text: str) -> None:
        self.sections: dict[tuple[str, str], str] = {}
        starts = list(_SECTION.finditer(text))
        for start, end in zip(starts, [*starts[1:], None], strict=True):
            self.sections[start.group(1), start.group(2)] = text[start.start() : end.start() if end else len(text)]
        main = _MAIN.search(text)
        if not main:
            raise SchemaError("has no resource")
        self.main = main.group(1)

    def block(self, name: str) -> Block:
        """The schema of the struct NAME, or of the resource itself."""
        is_main = name == self.main
        body = self.sections["class", name if is_main else f"{name}OutputReference"]
        hcl = body if is_main else self.sections.get(("function", name[0].lower() + name[1:] + "ToHclTerraform"), "")
        kinds = {entry[0]: entry[2] for entry in _ENTRY.findall(hcl)}
        documented = set(_BLOCK_DOC.findall(self.sections.get(("interface", f"{name}Config" if is_main else name), "")))
        block = Block(attributes={}, blocks={})
        for match in _MEMBER.finditer(body):
            key = match["name"]
            flags = Flags(required=match["required"] == "true", optional=match["optional"] == "true", computed=match["computed"] == "true")
            struct = _plain(match["type"] or "").removesuffix("[]")
            if match["class"]:
                self._nested(block, key, match, flags, documented)
            elif ("interface", struct) in self.sections:
                # A provider's blocks have no class.
                block["blocks"][key] = Nested(nesting="list", required=flags["required"], block=self._interface(struct))
            else:
                found = simple_type(match["type"], kinds.get(key, "simple")) if match["type"] else getter_type(match["getter"])
                block["attributes"][key] = _attribute(found, flags)
        declared = len(re.findall(r"^ +// \w+ - computed:", body, re.MULTILINE))
        if declared != len(block["attributes"]) + len(block["blocks"]):
            raise SchemaError(f"{name}: {declared} attributes are declared, and not all were read")
        return block

    def _interface(self, name: str) -> Block:
        """The schema of a struct that has only an interface. An optional attribute may be computed."""
        block = Block(attributes={}, blocks={})
        for key, optional, text in _PROPERTY.findall(self.sections["interface", name]):
            struct = _plain(text).removesuffix("[]")
            if ("interface", struct) in self.sections:
                block["blocks"][key] = Nested(nesting="list", required=not optional, block=self._interface(struct))
            else:
                block["attributes"][key] = Attribute(
                    type=simple_type(text, "simple"), required=not optional, optional=bool(optional), computed=False
                )
        return block

    def _nested(self, block: Block, key: str, match: re.Match[str], flags: Flags, documented: set[str]) -> None:
        many = re.fullmatch(r"(\w+?)(List|Map)", match["class"])
        name = many.group(1) if many else match["class"].removesuffix("OutputReference")
        if ("class", f"{name}OutputReference") not in self.sections:
            # Maps and lists of simple values: cdktf.StringMap and the like.
            found = {"String": "string", "Number": "number", "Boolean": "bool"}.get(name)
            if not found or not many:
                raise SchemaError(f"{key} has an unknown class {match['class']}")
            block["attributes"][key] = _attribute([many.group(2).lower(), found], flags)
            return
        inner = self.block(name)
        if key in documented:
            nested = Nested(nesting="set" if match["set"] == "true" else "list", required=flags["required"], block=inner)
            if not many:
                nested["max"] = 1
            if key == "timeouts":
                nested["nesting"] = "single"
            block["blocks"][key] = nested
            return
        item = object_type(inner)
        kind = ("set" if match["set"] == "true" else many.group(2).lower()) if many else None
        block["attributes"][key] = _attribute([kind, item] if kind else item, flags)


def object_type(block: Block) -> Type:
    """The type of a value with the attributes of the block."""
    members: dict[str, Type] = {name: attribute["type"] for name, attribute in block["attributes"].items()}
    for name, nested in block["blocks"].items():
        members[name] = [nested["nesting"], object_type(nested["block"])]
    return ["object", members]


def folder(name: str) -> str:
    """The folder of resource.aws_db_instance: db-instance; of data.aws_vpc: data-aws-vpc."""
    kind, _, rest = name.partition(".")
    provider, _, resource = rest.partition("_")
    if kind == "provider":
        return "provider"
    return (f"{kind}-{provider}-{resource}" if kind in ("data", "ephemeral") else resource).replace("_", "-")


def extract(package: Path, names: set[str]) -> dict[str, object]:
    """The schemas of the named resources, and the provider's version."""
    wanted = {f"package/lib/{folder(name)}/index.js": name for name in names}
    schemas: dict[str, Block] = {}
    versions: set[str] = set()
    with tarfile.open(package, "r:gz") as archive:
        for member in archive:
            if name := wanted.get(member.name):
                content = archive.extractfile(member)
                assert content is not None
                try:
                    text = typescript(content.read().decode())
                    schemas[name] = Source(text).block(Source(text).main)
                except (SchemaError, KeyError) as error:
                    raise SchemaError(f"{name}: {error}") from error
                versions |= set(_VERSION.findall(text))
                if len(schemas) == len(wanted):
                    break
    if missing := names - schemas.keys():
        raise SchemaError(f"{package.name} has no {', '.join(sorted(missing))}")
    if len(versions) != 1:
        raise SchemaError(f"{package.name} is of several versions: {versions}")
    return {"version": versions.pop(), "schemas": schemas}


def main(arguments: list[str]) -> int:
    if len(arguments) < 3:
        print(__doc__, file=sys.stderr)
        return 64
    try:
        result = extract(Path(arguments[0]), set(arguments[2:]))
    except (SchemaError, OSError, tarfile.TarError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    Path(arguments[1]).write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
