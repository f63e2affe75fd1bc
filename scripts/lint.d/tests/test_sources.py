"""Rust sources are separated into code, comments and literals."""

from __future__ import annotations

import unittest

from sources import Lines, closing, rust_code, rust_tokens


class RustTokens(unittest.TestCase):
    def tokens(self, text: str) -> list[tuple[str, str]]:
        return [(token.kind, text[token.start : token.end]) for token in rust_tokens(text)]

    def test_comments_and_literals_are_found(self) -> None:
        text = "let a = \"b // c\"; // d \"e\"\nlet f = r#\"g\"h\"#; /* i /* j */ k */ let l = b'\\''; let m: &'a str;"
        expected = [
            ("string", '"b // c"'),
            ("comment", '// d "e"'),
            ("string", 'r#"g"h"#'),
            ("comment", "/* i /* j */ k */"),
            ("char", "b'\\''"),
        ]
        self.assertEqual(self.tokens(text), expected)

    def test_lifetimes_are_code(self) -> None:
        self.assertEqual(self.tokens("fn f<'a, 'b>(x: &'a str, y: &'b str) {}"), [])

    def test_escaped_quotes_do_not_end_a_string(self) -> None:
        self.assertEqual(self.tokens(r'"a\"b" c "\\"'), [("string", r'"a\"b"'), ("string", r'"\\"')])

    def test_code_keeps_offsets_and_lines(self) -> None:
        text = 'a("{") /* {\n */ { b }'
        code = rust_code(text)
        self.assertEqual(len(code), len(text))
        self.assertEqual(code.index("{"), text.rindex("{"))
        self.assertEqual(closing(code, code.index("{")), len(text) - 1)
        self.assertEqual(Lines(text).of(text.rindex("b")), 2)


if __name__ == "__main__":
    unittest.main()
