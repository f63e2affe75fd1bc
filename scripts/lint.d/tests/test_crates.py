"""scripts/lint.d/crates.py: each direct dependency has a row, with Cargo's columns."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path
from typing import Any

import crates


class Crates(unittest.TestCase):
    def package(self, code: str, *kinds: str, license_text: str = "MIT/Apache-2.0") -> dict[str, Any]:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        sources = Path(folder.name) / "src"
        sources.mkdir()
        (sources / "lib.rs").write_text(code)
        targets = [{"kind": [kind]} for kind in ("lib", *kinds)]
        return {"targets": targets, "license": license_text, "manifest_path": str(Path(folder.name) / "Cargo.toml")}

    def test_columns_are_license_build_code_and_unsafe(self) -> None:
        self.assertEqual(crates.cells(self.package("fn f() {}")), "MIT OR Apache-2.0 | no | no")
        self.assertEqual(crates.cells(self.package("unsafe fn f() {}", "custom-build")),
                         "MIT OR Apache-2.0 | build script | yes")
        quiet = "#![forbid(unsafe_code)]\n// unsafe\n/* unsafe */\n#[allow(unsafe_code)]\nfn f() {}"
        self.assertEqual(crates.cells(self.package(quiet, "proc-macro", license_text="MIT")), "MIT | macro | no")

    def test_only_crates_that_a_manifest_names_count(self) -> None:
        def package(name: str) -> dict[str, Any]:
            return self.package("") | {"id": name, "name": name}

        metadata = {
            "packages": [package("ours"), package("a"), package("of-a")],
            "workspace_members": ["ours"],
            "resolve": {"nodes": [
                {"id": "ours", "deps": [{"pkg": "a"}, {"pkg": "ours"}]},
                {"id": "a", "deps": [{"pkg": "of-a"}]},
            ]},
        }
        self.assertEqual(list(crates.direct(metadata)), ["a"])

    def test_missing_wrong_and_superfluous_rows_are_found(self) -> None:
        known = {"a": "MIT | no | no", "b": "MIT | no | no"}
        good = ["| `a` | x | MIT | no | no |", "| `b` | y | MIT | no | no |"]
        self.assertEqual(crates.findings(known, good), [])
        for lines, message in (
            (good[:1], "lacks a row for the crate b"),
            ([good[0], "| `b` | y | MIT | no | yes |"], "must be: | `b` | y | MIT | no | no |"),
            ([*good, "| `c` | z | MIT | no | no |"], "no manifest names c"),
            ([good[0], "| `b` |  | MIT | no | no |"], "lacks what b is used for"),
        ):
            found = crates.findings(known, lines)
            self.assertEqual(len(found), 1, found)
            self.assertIn(message, found[0].message)


if __name__ == "__main__":
    unittest.main()
