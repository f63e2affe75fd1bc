"""Circles between modules are found through re-exports and inline paths; parents, children and tests make none."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import modules


class Circles(unittest.TestCase):
    def circles(self, files: dict[str, str]) -> list[list[str]]:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for name, text in files.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
            edges = list(modules.Crate("test", root / "lib.rs").edges(root))
        return [sorted(edge.source for edge in circle) for circle in modules.circles(edges)]

    def test_two_modules_that_use_each_other(self) -> None:
        files = {"lib.rs": "mod a;\nmod b;", "a.rs": "use crate::b::B;", "b.rs": "fn f() { super::a::g(); }"}
        self.assertEqual(self.circles(files), [["a", "b"]])

    def test_a_circle_of_three(self) -> None:
        files = {
            "lib.rs": "mod a; mod b; mod c;",
            "a.rs": "use crate::b::{self, B};",
            "b.rs": "use super::c;",
            "c.rs": "use crate::{a::A as Other};",
        }
        self.assertEqual(self.circles(files), [["a", "b", "c"]])

    def test_a_circle_through_a_re_export(self) -> None:
        files = {
            "lib.rs": "mod a; mod b; pub use b::B; pub use a::*;",
            "a.rs": "use crate::B; pub struct A;",
            "b.rs": "use crate::A; pub struct B;",
        }
        self.assertEqual(self.circles(files), [["a", "b"]])

    def test_a_circle_between_folders(self) -> None:
        files = {
            "lib.rs": "mod a; mod b;",
            "a/mod.rs": "mod x; mod y;",
            "a/x.rs": "use crate::b::z::Z;",
            "a/y.rs": "",
            "b.rs": "pub mod z;",
            "b/z.rs": "use crate::a::y::Y;",
        }
        self.assertEqual(self.circles(files), [["a", "b"]])

    def test_parent_and_child_may_use_each_other(self) -> None:
        files = {
            "lib.rs": "mod a;",
            "a/mod.rs": "mod x; use x::X; pub struct A;",
            "a/x.rs": "use super::A; pub struct X;",
        }
        self.assertEqual(self.circles(files), [])

    def test_tests_comments_and_other_crates_are_left_out(self) -> None:
        files = {
            "lib.rs": "mod a; mod b; mod c;",
            "a.rs": "use super::b::B; use serde::de; // use crate::c::C;",
            "b.rs": "#[cfg(test)]\nmod tests { use crate::a::A; }\n#[cfg(test)] use super::c::C;",
            "c.rs": "use crate::b::B; const X: &str = \"crate::a::A\";",
        }
        self.assertEqual(self.circles(files), [])

    def test_inline_modules_are_modules(self) -> None:
        files = {"lib.rs": "mod a { use super::b::B; pub struct A; }\nmod b { use super::a::A; pub struct B; }"}
        self.assertEqual(self.circles(files), [["a", "b"]])


class Order(unittest.TestCase):
    TABLE = "### Crates\n\n| crate | owns |\n|---|---|\n| `low` | x |\n| `high` | y |\n\n### Next\n\n| `other` | z |\n"

    def findings(self, table: str, low: str, high: str) -> list[str]:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "docs").mkdir()
            (root / modules.ARCHITECTURE).write_text(table)
            for name, manifest in (("low", low), ("high", high)):
                (root / "crates" / name).mkdir(parents=True)
                (root / "crates" / name / "Cargo.toml").write_text(manifest)
            return [finding.message for finding in modules.order_findings(root)]

    def test_a_crate_may_use_those_above_it(self) -> None:
        self.assertEqual(self.findings(self.TABLE, "", "[dependencies]\nlinnet-low.workspace = true"), [])

    def test_a_crate_may_not_use_those_below_it(self) -> None:
        for table in ("dependencies", "build-dependencies", "target.'cfg(unix)'.dependencies"):
            found = self.findings(self.TABLE, f"[{table}]\nlinnet-high.workspace = true", "")
            self.assertEqual(len(found), 1, found)
        self.assertEqual(self.findings(self.TABLE, "[dev-dependencies]\nlinnet-high.workspace = true", ""), [])

    def test_table_and_folders_are_the_same(self) -> None:
        self.assertEqual(len(self.findings(self.TABLE.replace("high", "gone"), "", "")), 2)
        self.assertEqual(len(self.findings("# Nothing\n", "", "")), 1)


if __name__ == "__main__":
    unittest.main()
