"""Each fault of a Terraform file is found, and the same file without it is accepted."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import tempfile
import unittest
from pathlib import Path
from typing import Any, ClassVar

import check
import costs
import kubernetes_names
import redis_users
import schemas

GOOD = """
terraform {
  required_version = ">= 1.11.0"
  required_providers {
    cloud = {
      source  = "example/cloud"
      version = "1.2.3"
    }
  }
}

provider "cloud" {}

variable "size" {
  description = "Size."
  type        = number
  validation {
    condition     = var.size > 0
    error_message = "The size must be positive."
  }
}

variable "names" {
  description = "Names."
  type        = set(string)
}

locals {
  prefix = "a-${var.size}"
  items  = { for name in var.names : name => upper(name) }
}

data "cloud_zone" "main" {
  name = "${local.prefix}.example.com"
}

resource "cloud_server" "main" {
  name = "one"
  size = var.size
  tags = ["a", data.cloud_zone.main.id]

  disk {
    size = 10
  }

  dynamic "rule" {
    for_each = var.names
    content {
      port = rule.value
    }
  }

  lifecycle {
    ignore_changes = [size]
  }
}

resource "cloud_server" "many" {
  for_each = local.items
  name     = "${each.key}: ${join(",", [for tag in cloud_server.main.tags : "x${tag}"])}"

  disk {
    size = cloud_server.main.disk[0].size
  }
}

output "addresses" {
  description = "Addresses."
  value       = { for key, server in cloud_server.many : key => server.address }
}

output "first" {
  description = "Its first address."
  value       = cloud_server.many["a"].address
}
"""


def attribute(kind: schemas.Type, flag: str) -> schemas.Attribute:
    return schemas.Attribute(type=kind, required=flag == "required", optional=flag == "optional", computed=flag == "computed")


def block(attributes: dict[str, schemas.Attribute], **blocks: schemas.Nested) -> schemas.Block:
    return schemas.Block(attributes=attributes, blocks=dict(blocks))


SCHEMAS = {
    "cloud": {
        "version": "1.2.3",
        "schemas": {
            "provider.cloud": block({"token": attribute("string", "optional")}),
            "data.cloud_zone": block({"name": attribute("string", "required"), "id": attribute("string", "computed")}),
            "resource.cloud_server": block(
                {
                    "name": attribute("string", "required"),
                    "size": attribute("number", "optional"),
                    "tags": attribute(["set", "string"], "optional"),
                    "labels": attribute(["map", "string"], "optional"),
                    "public": attribute("bool", "optional"),
                    "address": attribute("string", "computed"),
                },
                disk=schemas.Nested(nesting="list", required=True, max=1, block=block({"size": attribute("number", "required")})),
                rule=schemas.Nested(nesting="set", required=False, block=block({"port": attribute("string", "required")})),
            ),
        },
    }
}


def findings(text: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "main.tf").write_text(text)
        return check.Check(check.load(Path(folder)), SCHEMAS).run()


class Faults(unittest.TestCase):
    def fails(self, old: str, new: str, *expected: str) -> None:
        """One replacement leads to exactly these findings."""
        self.assertIn(old, GOOD)
        found = findings(GOOD.replace(old, new, 1))
        self.assertEqual(len(found), len(expected), found)
        for text, finding in zip(expected, found, strict=True):
            self.assertIn(text, finding)

    def test_a_correct_file_has_no_finding(self) -> None:
        self.assertEqual(findings(GOOD), [])

    def test_unknown_names(self) -> None:
        self.fails('name = "one"', 'name = "one"\n  nickname = 1', "nickname does not exist")
        self.fails("    size = 10", "    size = 10\n    kind = 1", "disk.kind does not exist")
        self.fails("      port = rule.value", "      port = rule.value\n      x = 1", "rule.x does not exist")
        self.fails('dynamic "rule"', 'dynamic "rules"', "the block rules does not exist", "rule.value is not declared")
        self.fails('resource "cloud_server" "many"', 'resource "cloud_sever" "many"', "is not in the provider's schema", "cloud_server.many", "cloud_server.many")
        self.fails('provider "cloud" {}', 'provider "cloud" {\n  user = "x"\n}', "user does not exist")
        self.fails('provider "cloud" {}', 'module "cloud" {}', "unknown kind")

    def test_missing_names(self) -> None:
        self.fails('  name = "one"\n', "", "name is required and missing")
        self.fails("  disk {\n    size = 10\n  }\n", "", "the block disk is required and missing")
        self.fails("    size = 10\n", "", "disk.size is required and missing")
        self.fails('name = "one"', "name = null", "name is required and null")
        self.fails("      port = rule.value\n", "", "rule.port is required and missing")

    def test_values_of_another_kind(self) -> None:
        self.fails("size = var.size", 'size = "big"', 'size must be a number: "\\"big\\""')
        self.fails("size = var.size", "size = true", "size must be a number")
        self.fails('name = "one"', "name = 1", "name must be a string")
        self.fails('name = "one"', 'name = "one"\n  public = "yes"', "public must be true or false")
        self.fails('name = "one"', 'name = "one"\n  labels = ["x"]', "labels must be a map of string")
        self.fails('name = "one"', 'name = "one"\n  labels = { a = ["x"] }', "labels a: must be a string")
        self.fails('tags = ["a", data.cloud_zone.main.id]', 'tags = "a"', "tags must be a set of string")
        self.fails('tags = ["a", data.cloud_zone.main.id]', "tags = data.cloud_zone.main.id", "is a string")
        self.fails('tags = ["a", data.cloud_zone.main.id]', "tags = [1]", "tags must be a string")
        self.fails("size = var.size", "size = var.names", "var.names is a set of string")
        self.fails('name = "one"', 'name = "one"\n  address = "x"', "address is computed and cannot be set")
        self.fails('tags = ["a", data.cloud_zone.main.id]', "tags {\n  }", "tags is an attribute, not a block")
        self.fails("  disk {\n    size = 10\n  }\n", "  disk {\n    size = 10\n  }\n  disk {\n    size = 10\n  }\n", "only once")

    def test_references_to_nothing(self) -> None:
        self.fails("size = var.size", "size = var.sizes", "var.sizes is not declared")
        self.fails("${local.prefix}", "${local.suffix}", "local.suffix is not declared")
        self.fails("data.cloud_zone.main.id", "data.cloud_zone.other.id", "data.cloud_zone.other.id is not declared")
        self.fails("data.cloud_zone.main.id", "data.cloud_zone.main.ids", "leads to ids")
        self.fails("cloud_server.main.disk[0].size", "cloud_server.main.disk[0].sizes", "leads to sizes")
        self.fails('cloud_server.many["a"].address', "cloud_server.many.address", "needs an index")
        self.fails("cloud_server.main.tags", "cloud_server.main[0].tags", "has an index")
        self.fails('"x${tag}"', '"x${tga}"', "tga is not declared")
        self.fails("port = rule.value", "port = role.value", "role.value is not declared")
        self.fails("ignore_changes = [size]", "ignore_changes = [sizes]", "sizes is not declared")
        self.fails("size = var.size", "size = each.value", "each.value needs for_each")

    def test_conventions(self) -> None:
        self.fails('  description = "Size."\n', "", "variable.size: has no description")
        self.fails("  type        = number\n", "", "variable.size: has no type")
        self.fails('  description = "Addresses."\n', "", "output.addresses: has no description")
        self.fails('  required_version = ">= 1.11.0"\n', "", "has no required_version")
        self.fails('version = "1.2.3"', 'version = "~> 1.2"', "the schema is that of 1.2.3")
        self.fails('output "first"', 'output "addresses"', "is declared twice")
        self.fails('locals {', 'variable "other" {\n  type = string\n  description = "x"\n}\n\nlocals {', "variable.other: is not used")


TYPESCRIPT = """
export interface ServerConfig extends cdktn.TerraformMetaArguments {
  readonly name: string;
  /**
  * disk block
  *
  */
  readonly disk?: ServerDisk;
}
export interface ServerDisk {
}
export function serverDiskToHclTerraform(struct?: ServerDisk): any {
}
export class ServerDiskOutputReference extends cdktn.ComplexObject {
  // size - computed: false, optional: false, required: true
  private _size?: number;
}
export class Server extends cdktn.TerraformResource {
        providerVersion: '1.2.3',
  // address - computed: true, optional: false, required: false
  public get address() {
    return this.getStringAttribute('address');
  }
  // name - computed: false, optional: false, required: true
  private _name?: string;
  // tags - computed: false, optional: true, required: false
  private _tags?: string[];
  // disk - computed: false, optional: true, required: false
  private _disk = new ServerDiskOutputReference(this, "disk");
  protected synthesizeHclAttributes(): { [name: string]: any } {
      tags: {
        value: cdktn.listMapperHcl(cdktn.stringToHclTerraform, false)(this._tags),
        isBlock: false,
        type: "set",
        storageClassType: "stringList",
      },
  }
}
"""


class Packages(unittest.TestCase):
    def package(self, source: str) -> Path:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        content = json.dumps({"sourcesContent": [source]}).encode()
        script = b"//# sourceMappingURL=data:application/json;base64," + base64.b64encode(content)
        with tarfile.open(folder / "package.tgz", "w:gz") as archive:
            member = tarfile.TarInfo("package/lib/server/index.js")
            member.size = len(script)
            archive.addfile(member, io.BytesIO(script))
        return folder / "package.tgz"

    def test_names_types_and_blocks_are_read(self) -> None:
        result = schemas.extract(self.package(TYPESCRIPT), {"resource.cloud_server"})
        self.assertEqual(result["version"], "1.2.3")
        schema = result["schemas"]["resource.cloud_server"]  # type: ignore[index]
        self.assertEqual({name: value["type"] for name, value in schema["attributes"].items()}, {"address": "string", "name": "string", "tags": ["set", "string"]})
        self.assertTrue(schema["attributes"]["name"]["required"] and schema["attributes"]["address"]["computed"])
        self.assertEqual(schema["blocks"]["disk"]["max"], 1)
        self.assertEqual(schema["blocks"]["disk"]["block"]["attributes"]["size"]["type"], "number")

    def test_packages_of_another_form_are_errors(self) -> None:
        for old, new in (("private _name?: string;", "private name = 1;"), ("_size?: number", "_size?: Bytes"), ("TerraformResource", "Thing"),
                         ("getStringAttribute", "getOtherAttribute"), ("new ServerDiskOutputReference", "new UnknownOutputReference")):
            self.assertIn(old, TYPESCRIPT)
            with self.assertRaises(schemas.SchemaError, msg=new):
                schemas.extract(self.package(TYPESCRIPT.replace(old, new)), {"resource.cloud_server"})
        with self.assertRaises(schemas.SchemaError):
            schemas.extract(self.package(TYPESCRIPT), {"resource.cloud_server", "resource.cloud_other"})


COSTS = """
<!-- costs -->
| a | arithmetic | a month |
|---|---|---|
| one | 2 × 730 × 0.5 | 730.00 |
| two | 3.333 | 3.33 |
| **total** | | **733.33** |

| b | arithmetic | a month |
|---|---|---|
| one | 0 | 0.00 |
| **total** | | **0.00** |
<!-- end of costs -->
"""


class Costs(unittest.TestCase):
    def test_wrong_products_and_totals_are_found(self) -> None:
        self.assertEqual(costs.faults(COSTS), [])
        self.assertEqual(costs.faults(costs.PAGE.read_text()), [])
        for old, new, count in (("| 730.00", "| 730.01", 2), ("**733.33**", "**733.34**", 1), ("2 × 730", "two × 730", 2), ("**0.00**", "**1.00**", 1)):
            self.assertEqual(len(costs.faults(COSTS.replace(old, new))), count, new)
        self.assertEqual(len(costs.faults("no table")), 1)


class RedisUsers(unittest.TestCase):
    def test_a_rule_that_differs_is_found(self) -> None:
        wanted = redis_users.scripted()
        found = redis_users.configured(redis_users.ROOT / "deploy/terraform/aws")
        self.assertEqual(set(found), set(redis_users.ROLES))
        self.assertEqual(redis_users.differences(wanted, found), [])
        self.assertEqual(len(redis_users.differences(wanted, found | {"gateway": "~* +@all"})), 1)
        self.assertEqual(len(redis_users.differences(wanted, {})), 4)


class KubernetesNames(unittest.TestCase):
    MANIFESTS: ClassVar[list[dict[str, Any]]] = [
        {"kind": "ExternalSecret", "apiVersion": "external-secrets.io/v1", "spec": {"data": [{"remoteRef": {"key": "linnet/one"}}]}},
        {"kind": "Gateway", "apiVersion": "gateway.networking.k8s.io/v1"},
        {"kind": "Namespace", "apiVersion": "v1"},
    ]
    ALLOWED = {("external-secrets.io", "externalsecrets"), ("gateway.networking.k8s.io", "gateways")}

    def test_a_secret_that_nothing_reads_is_found(self) -> None:
        self.assertEqual(kubernetes_names.faults(self.MANIFESTS, {"one"}, self.ALLOWED), [])
        [fault] = kubernetes_names.faults(self.MANIFESTS, {"one", "two"}, self.ALLOWED)
        self.assertIn("no ExternalSecret reads linnet/two", fault)
        faults = kubernetes_names.faults(self.MANIFESTS, set(), self.ALLOWED)
        self.assertEqual(len(faults), 1)
        self.assertIn("linnet/one, which does not exist", faults[0])

    def test_networks_accounts_and_versions_are_compared(self) -> None:
        manifests = kubernetes_names.overlay()
        self.assertEqual(kubernetes_names.named_networks(manifests), kubernetes_names.networks())
        self.assertEqual(kubernetes_names.networks(), {"10.40.8.0/24", "10.40.9.0/24", "10.40.10.0/24"})
        self.assertEqual(kubernetes_names.accounts(manifests), [])
        [fault] = kubernetes_names.accounts([])
        self.assertIn("no service account backup", fault)
        self.assertEqual(kubernetes_names.versions(manifests, "17"), [])
        self.assertEqual(len(kubernetes_names.versions(manifests, "18")), 1)

    def test_a_kind_without_a_right_is_found(self) -> None:
        [fault] = kubernetes_names.faults(self.MANIFESTS, {"one"}, self.ALLOWED - {("gateway.networking.k8s.io", "gateways")})
        self.assertIn("gateways", fault)

    def test_plurals(self) -> None:
        self.assertEqual([kubernetes_names.plural(kind) for kind in ("Gateway", "NetworkPolicy", "Job")], ["gateways", "networkpolicies", "jobs"])


if __name__ == "__main__":
    unittest.main()
