"""Images of others without an exact version or a digest are found, also in new files and in the repository's own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import images
from sources import ROOT

PIN = "@sha256:" + "0" * 64
FILES = ("deploy/compose.yaml", "deploy/Dockerfile", images.PAGE)


class References(unittest.TestCase):
    def test_exact_versions_with_digests_are_accepted(self) -> None:
        for reference in ("redis:8.2.10-bookworm", "postgres:17.11-trixie", "prom/prometheus:v3.13.4", "ghcr.io/a/b:v0.60.6",
                          "localhost:5000/a:1.2.3"):
            self.assertIsNone(images.fault(reference + PIN), reference)

    def test_moving_tags_are_found_despite_a_digest(self) -> None:
        for reference in ("redis:8", "redis:8.2-bookworm", "postgres:17", "redis:latest", "redis", "redis:trixie",
                          "nginxinc/nginx-unprivileged:1.30"):
            self.assertIn("no exact version", images.fault(reference + PIN) or "", reference)

    def test_references_without_a_whole_digest_are_found(self) -> None:
        self.assertIn("no digest", images.fault("redis:8.2.10") or "")
        self.assertIn("malformed", images.fault("redis:8.2.10@sha256:0123") or "")
        self.assertIn("no literal reference", images.fault("${REDIS:-redis:8.2.10}") or "")

    def test_an_exception_needs_an_exact_version_and_ends_with_a_digest(self) -> None:
        name = next(iter(images.BY_TAG))
        self.assertIsNone(images.fault(f"{name}:1.2.3"))
        self.assertIn("no exact version", images.fault(f"{name}:1.2") or "")
        self.assertIn("remove", images.fault(f"{name}:1.2.3{PIN}") or "")


class Files(unittest.TestCase):
    def test_compose_files_have_images_in_blocks_and_in_one_line(self) -> None:
        text = ("services:\n  a:\n    image: redis:8\n  b: {image: \"postgres:17\", user: x}\n  # image: c\n"
                "  d:\n    image: ${LINNET_B:-${LINNET_X:-linnet/x:development}}\n  e:\n    image: ${E:-redis:8}\n")
        self.assertEqual(list(images.compose_images(text)), [(3, "redis:8"), (4, "postgres:17"), (9, "${E:-redis:8}")])

    def test_dockerfiles_have_images_in_stages_arguments_and_copies(self) -> None:
        text = ("ARG BASE=one\nFROM rust:1 AS one\nFROM ${BASE} AS two\nFROM scratch\nCOPY --from=two /a /a\n"
                "COPY --from=0 /a /a\nCOPY --from=busybox:1 /a /a\nRUN --mount=type=bind,from=alpine:3 true\n"
                "ARG OTHER=debian:13\nFROM --platform=linux/amd64 $OTHER AS three\n")
        expected = [(2, "rust:1"), (7, "busybox:1"), (8, "alpine:3"), (10, "debian:13")]
        self.assertEqual(list(images.dockerfile_images(text)), expected)


class Repository(unittest.TestCase):
    def setUp(self) -> None:
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory()))
        subprocess.run(["git", "init", "-q", str(self.root)], check=True)
        for file in FILES:
            (self.root / file).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / file, self.root / file)

    def found(self) -> list[str]:
        return [finding.message for finding in images.findings(self.root)[0]]

    def replace(self, file: str, old: str, new: str) -> None:
        text = (self.root / file).read_text()
        self.assertIn(old, text)
        (self.root / file).write_text(text.replace(old, new))

    def test_the_repository_has_no_findings(self) -> None:
        self.assertEqual(self.found(), [])

    def test_a_removed_digest_is_found_in_each_file(self) -> None:
        for file in ("deploy/compose.yaml", "deploy/Dockerfile"):
            before = len(self.found())
            reference = next(word for word in (self.root / file).read_text().split() if "@sha256:" in word)
            self.replace(file, reference, reference.split("@", 1)[0])
            self.assertEqual(len(self.found()), before + 1, file)

    def test_a_new_compose_file_is_checked(self) -> None:
        (self.root / "deploy" / "compose.extra.yaml").write_text("services: {a: {image: redis:8}}\n")
        self.assertEqual(len(self.found()), 1)

    def test_exceptions_are_used_and_documented(self) -> None:
        name = next(iter(images.BY_TAG))
        self.replace(images.PAGE, f"`{name}`", "an image")
        self.assertIn("the page does not say", self.found()[0])
        self.replace("deploy/compose.yaml", f"image: {name}:", f"image: other/{name}:")
        self.assertTrue(any("which no file uses" in message for message in self.found()), self.found())


if __name__ == "__main__":
    unittest.main()
