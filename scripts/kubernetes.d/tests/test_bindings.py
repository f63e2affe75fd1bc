"""Types of crates: what the manifests may contain follows from them, and a crate of another form is an error."""

from __future__ import annotations

import unittest

import bindings

SOURCE = """
/// A comment with a brace {
#[derive(CustomResource, Serialize, Deserialize)]
#[kube(group = "example.org", version = "v1", kind = "Server", plural = "servers")]
pub struct ServerSpec {
    /// Comment, with #[serde(rename = "wrong")]
    #[serde(rename = "clusterSize")]
    pub cluster_size: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<ServerType>,
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "labelsOf")]
    pub labels_of: Option<BTreeMap<String, Vec<String>>>,
    pub limit: Option<IntOrString>,
    pub disks: Vec<ServerDisks>,
}

#[derive(Serialize, Deserialize)]
pub struct ServerDisks {
    pub anything: BTreeMap<String, serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
pub enum ServerType {
    Large,
    #[serde(rename = "very-small")]
    VerySmall,
}
"""


class Declarations(unittest.TestCase):
    def test_names_options_and_values(self) -> None:
        text = "".join(bindings.declarations(SOURCE))
        for line in (
            '"clusterSize": number;', '"type"?: ServerType;', '"labelsOf"?: Record<string, (string)[]>;', '"limit"?: string | number;',
            '"disks": (ServerDisks)[];', '"anything": Record<string, any>;', 'export type ServerType = "Large" | "very-small";',
        ):
            self.assertIn(line, text)

    def test_another_form_is_an_error(self) -> None:
        for old, new in (("i32", "Duration"), ("pub limit: Option<IntOrString>,", "pub limit: Option<\n        IntOrString>,"), ("    Large,\n", "    Large(String),\n")):
            with self.subTest(new), self.assertRaises(bindings.BindingError):
                list(bindings.declarations(SOURCE.replace(old, new)))


if __name__ == "__main__":
    unittest.main()
