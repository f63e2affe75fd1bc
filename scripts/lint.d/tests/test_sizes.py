"""Files and functions over their limits are found; a comment with the reason excuses a function."""

from __future__ import annotations

import unittest

import sizes


def python(lines: int, above: str = "") -> str:
    return f"{above}def long() -> None:\n" + "    pass\n" * (lines - 1)


def found(file: str, text: str) -> list[str]:
    return [finding.message.split(",")[0] for finding in sizes.file_findings(file, text)]


class Functions(unittest.TestCase):
    def function(self, lines: int, above: str = "") -> str:
        body = '    call("}"); // }\n' * (lines - 2)
        return f"{above}pub(crate) async fn long(a: [u8; 4]) -> bool {{\n{body}}}\n"

    def test_rust_functions_over_the_limit_are_found(self) -> None:
        self.assertEqual(found("a.rs", self.function(60)), [])
        self.assertEqual(found("a.rs", self.function(61)), ["`long` has 61 lines"])

    def test_python_functions_over_the_limit_are_found(self) -> None:
        self.assertEqual(found("a.py", python(60)), [])
        self.assertEqual(found("a.py", python(61)), ["`long` has 61 lines"])

    def test_a_reason_directly_above_excuses(self) -> None:
        reason = "// Long because it is one statement.\n"
        self.assertEqual(found("a.rs", self.function(61, f"/// Docs.\n{reason}#[test]\n")), [])
        attribute = '#[expect(\n    clippy::x,\n    reason = "y"\n)]\n'
        self.assertEqual(found("a.rs", self.function(61, reason + attribute)), [])
        self.assertEqual(found("a.py", python(61, "# Long because it is one table.\n@cache\n")), [])

    def test_a_reason_elsewhere_does_not_excuse(self) -> None:
        reason = "// Long because it is one statement.\n"
        for above in (f"{reason}\n", f"{reason}fn a() {{}}\n", "// Long because\n", "// Long.\n"):
            with self.subTest(above):
                self.assertEqual(found("a.rs", self.function(61, above)), ["`long` has 61 lines"])

    def test_declarations_have_no_body(self) -> None:
        text = "trait A { fn a(&self, b: [u8; 4]) -> u8; fn c() {} }"
        self.assertEqual(list(sizes.rust_functions(text)), [("c", 1, 1)])


class Files(unittest.TestCase):
    def test_files_over_the_limit_are_found(self) -> None:
        self.assertEqual(found("a.rs", "\n" * 400), [])
        self.assertEqual(found("a.rs", "\n" * 401), ["the file has 401 lines"])


if __name__ == "__main__":
    unittest.main()
