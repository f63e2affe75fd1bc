#!/usr/bin/env python3
"""Serves the schemas of schemas.py to Terraform as if they were providers, so that its own checks run without them.

    provider.py SCHEMAS FOLDER     prints TF_REATTACH_PROVIDERS when it serves, until its standard input ends

With that variable Terraform neither downloads nor starts a provider, but connects to a socket in FOLDER. It then evaluates
types, references, functions and conditions itself. The stand-in has what `validate`, and `plan` from an empty state, need:

- It accepts each configuration. Checks of a provider beside the schema, such as the form of a name, are missing.
- In a plan, what the provider computes is unknown.
- Data sources have the values of `DATA`, and otherwise strings that name the attribute.
- It cannot apply.

The protocol is version 5 of Terraform's plugin protocol. Its few messages are written here by hand, because a generated
module would be longer than the rest.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-not-found,import-untyped,unused-ignore]
from values import UNKNOWN, pack, unpack

# Values of data sources. A policy document is its configuration, as JSON.
DATA: dict[str, dict[str, Any]] = {
    "aws_caller_identity": {"account_id": "123456789012"},
    "aws_partition": {"partition": "aws"},
}
NESTING = {"single": 1, "list": 2, "set": 3, "map": 4}
SOURCES = {"aws": "hashicorp/aws", "digitalocean": "digitalocean/digitalocean"}
# Fields of GetProviderSchema.Response.
KINDS = {"resource": 2, "data": 3, "ephemeral": 8}


# --- Protocol Buffers -----------------------------------------------------------------------------------------------------
def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value) if value else b""


def data(field: int, value: bytes | str) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(content)) + content


# --- Schemas ------------------------------------------------------------------------------------------------------------
def attribute(name: str, schema: dict[str, Any]) -> bytes:
    flags = {4: schema["required"], 5: schema["optional"], 6: schema["computed"], 10: name.endswith("_wo")}
    content = data(1, name) + data(2, json.dumps(schema["type"]))
    return content + b"".join(number(field, int(value)) for field, value in flags.items())


def block(schema: dict[str, Any]) -> bytes:
    content = b"".join(data(2, attribute(name, inner)) for name, inner in schema["attributes"].items())
    for name, nested in schema["blocks"].items():
        single = nested["nesting"] == "single"
        limits = b"" if single else number(4, int(nested["required"])) + number(5, nested.get("max", 0))
        content += data(3, data(1, name) + data(2, block(nested["block"])) + number(3, NESTING[nested["nesting"]]) + limits)
    return content


def response(provider: str, schemas: dict[str, Any]) -> bytes:
    """GetProviderSchema.Response."""
    content = b""
    for name, schema in schemas.items():
        kind, _, resource = name.partition(".")
        message = data(2, block(schema))
        content += data(1, message) if name == f"provider.{provider}" else data(KINDS[kind], data(1, resource) + data(2, message))
    return content


# --- Answers ------------------------------------------------------------------------------------------------------------
def fields(message: bytes) -> dict[int, bytes]:
    """The length-delimited fields of a message; of repeated ones the last."""
    found: dict[int, bytes] = {}
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(message):
        key = varint()
        size = varint()
        if key & 7 == 2:
            found[key >> 3] = message[position : position + size]
            position += size
    return found


def dynamic(message: bytes) -> Any:
    """The value in a DynamicValue."""
    return unpack(fields(message)[1])


def planned(schema: dict[str, Any], value: Any) -> Any:
    """The value with unknowns in place of what the provider computes. Write-only arguments do not reach a plan."""
    if not isinstance(value, dict):
        return value
    result = dict(value)
    for name, inner in schema["attributes"].items():
        if name.endswith("_wo"):
            result[name] = None
        elif inner["computed"] and result.get(name) is None:
            result[name] = UNKNOWN
    for name, nested in schema["blocks"].items():
        inner = result.get(name)
        result[name] = [planned(nested["block"], item) for item in inner] if isinstance(inner, list) else planned(nested["block"], inner)
    return result


def computed(name: str, schema: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """A data source's or an ephemeral resource's value."""
    result = dict(value)
    for key, inner in schema["attributes"].items():
        if inner["computed"] and result.get(key) is None:
            result[key] = f"<{name}.{key}>" if inner["type"] == "string" else None
    if name == "aws_iam_policy_document":
        result["json"] = json.dumps(value)
    return result | DATA.get(name, {})


def handlers(provider: str, schemas: dict[str, Any]) -> grpc.GenericRpcHandler:
    schema = response(provider, schemas)

    def plan(request: bytes) -> bytes:
        message = fields(request)
        value = planned(schemas[f"resource.{message[1].decode()}"], dynamic(message[3]))
        return data(1, data(1, pack(value)))

    def read(kind: str, field: int, request: bytes) -> bytes:
        message = fields(request)
        name = message[1].decode()
        return data(field, data(1, pack(computed(name, schemas[f"{kind}.{name}"], dynamic(message[2])))))

    def unary(answer: Any) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(lambda request, _: answer(request))

    empty = ("ValidateResourceTypeConfig", "ValidateDataSourceConfig", "ValidateEphemeralResourceConfig", "Configure", "CloseEphemeralResource", "Stop")
    methods = {name: unary(lambda _: b"") for name in empty} | {
        "GetSchema": unary(lambda _: schema),
        # Request and response have the configuration in the same field.
        "PrepareProviderConfig": unary(lambda request: request),
        "PlanResourceChange": unary(plan),
        "ReadDataSource": unary(lambda request: read("data", 1, request)),
        "OpenEphemeralResource": unary(lambda request: read("ephemeral", 3, request)),
    }
    return grpc.method_handlers_generic_handler("tfplugin5.Provider", methods)


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 64
    reattach: dict[str, Any] = {}
    servers = []
    for file in sorted(Path(arguments[0]).glob("*.json")):
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=[("grpc.max_send_message_length", -1)])
        server.add_generic_rpc_handlers((handlers(file.stem, json.loads(file.read_text())["schemas"]),))
        socket = f"{Path(arguments[1]).resolve()}/{file.stem}.sock"
        server.add_insecure_port(f"unix:{socket}")
        server.start()
        servers.append(server)
        entry = {"Protocol": "grpc", "ProtocolVersion": 5, "Pid": os.getpid(), "Test": True}
        address = {"Network": "unix", "String": socket}
        for registry in ("registry.terraform.io", "registry.opentofu.org"):
            reattach[f"{registry}/{SOURCES[file.stem]}"] = {**entry, "Addr": address}
    print(json.dumps(reattach), flush=True)
    sys.stdin.read()
    for server in servers:
        server.stop(0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
