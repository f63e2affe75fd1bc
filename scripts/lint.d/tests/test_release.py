"""scripts/release, scripts/image-digests and scripts/audit-data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import unittest
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent.parent

COMPOSE = """\
services:
  shortener:
    image: ${LINNET_SHORTENER_IMAGE:-linnet/shortener:development}
  redis:
    image: redis:8
  nginx:
    image: nginxinc/nginx-unprivileged:1.30
"""
DOCKERFILE = """\
ARG RUST_IMAGE=toolchain
FROM rust:1.95.0-slim-trixie AS toolchain
FROM ${RUST_IMAGE} AS build
FROM scratch AS gateway
"""
DOCKER = """\
#!/bin/sh
# The digest depends on the image, which is the last argument.
for image in "$@"; do :; done
echo "$image" | grep -q unknown && exit 1
echo "sha256:$(echo "$image" | sha256sum | cut -d ' ' -f 1)"
"""


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], env=os.environ | environment, capture_output=True, text=True,
                          timeout=60, check=False)


class Scratch(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)


class Notes(Scratch):
    def notes(self, tag: str, changelog: str, version: str = "1.2.3") -> subprocess.CompletedProcess[str]:
        scripts = self.folder / "scripts"
        scripts.mkdir(exist_ok=True)
        for name in ("release", "lib.sh"):
            shutil.copy(ROOT / "scripts" / name, scripts)
        (self.folder / "Cargo.toml").write_text(f'[workspace.package]\nversion = "{version}"\n')
        (self.folder / "CHANGELOG.md").write_text(changelog)
        return run(scripts / "release", "notes", tag)

    def test_notes_are_the_section_of_the_version(self) -> None:
        for heading in ("## 1.2.3", "## [1.2.3] - 2026-11-27", "## [1.2.3]"):
            changelog = f"# Changelog\n\n## Unreleased\n\n- later\n\n{heading}\n\n- now\n\n### Fixed\n\n- it\n\n## 1.2.2\n\n- before\n"
            done = self.notes("v1.2.3", changelog)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stdout.split(), ["-", "now", "###", "Fixed", "-", "it"])

    def test_a_tag_without_its_version_or_notes_fails(self) -> None:
        good = "## 1.2.3\n\n- now\n"
        for tag, changelog, version in (
            ("v1.2.4", good, "1.2.3"),
            ("v1.2.3", good, "1.2.4"),
            ("v1.2.3", "## 1.2.30\n\n- later\n", "1.2.3"),
            ("v1.2.3", "## 1x2.3\n\n- later\n", "1.2.3"),
            ("v1.2.3", "## 1.2.3\n\n \n\n## 1.2.2\n\n- before\n", "1.2.3"),
            ("1.2.3", good, "1.2.3"),
            ("v1.2", good, "1.2"),
        ):
            done = self.notes(tag, changelog, version)
            self.assertNotEqual(done.returncode, 0, (tag, changelog))
            self.assertEqual(done.stdout, "", (tag, changelog))


class Digests(Scratch):
    def setUp(self) -> None:
        super().setUp()
        self.compose = self.folder / "compose.yaml"
        self.compose.write_text(COMPOSE)
        self.dockerfile = self.folder / "Dockerfile"
        self.dockerfile.write_text(DOCKERFILE)
        docker = self.folder / "docker"
        docker.write_text(DOCKER)
        docker.chmod(0o755)

    def digests(self, *options: str) -> subprocess.CompletedProcess[str]:
        return run(ROOT / "scripts" / "image-digests", *options, LINNET_DEPLOY=str(self.folder),
                   PATH=f"{self.folder}:{os.environ['PATH']}")

    def test_each_image_of_others_is_pinned_once(self) -> None:
        self.assertEqual(self.digests("--check").returncode, 1)
        self.assertEqual(self.digests().returncode, 0)
        pinned = self.compose.read_text()
        self.assertRegex(pinned, r"image: redis:8@sha256:[0-9a-f]{64}\n")
        self.assertRegex(pinned, r"image: nginxinc/nginx-unprivileged:1\.30@sha256:[0-9a-f]{64}\n")
        self.assertIn("image: ${LINNET_SHORTENER_IMAGE:-linnet/shortener:development}\n", pinned)
        built = self.dockerfile.read_text()
        self.assertRegex(built, r"FROM rust:1\.95\.0-slim-trixie@sha256:[0-9a-f]{64} AS toolchain\n")
        self.assertEqual(built.split("\n", 2)[2], DOCKERFILE.split("\n", 2)[2])
        self.assertEqual((self.digests("--check").returncode, self.digests().returncode), (0, 0))
        self.assertEqual(self.compose.read_text(), pinned)

    def test_a_tag_that_moved_is_reported_and_pinned_anew(self) -> None:
        self.compose.write_text(COMPOSE.replace("redis:8", "redis:8@sha256:" + "0" * 64))
        self.assertIn("redis:8", self.digests("--check").stderr)
        self.assertEqual(self.digests().returncode, 0)
        self.assertNotIn("0" * 64, self.compose.read_text())

    def test_an_image_without_a_digest_changes_nothing_else(self) -> None:
        self.compose.write_text("    image: unknown:1\n")
        self.assertEqual(self.digests().returncode, 69)
        self.assertEqual(self.compose.read_text(), "    image: unknown:1\n")


class AuditData(Scratch):
    def crates(self, packages: list[dict[str, object]] | None) -> subprocess.CompletedProcess[str]:
        program = self.folder / "program"
        command = ["objcopy"]
        if packages is not None:
            data = self.folder / "data"
            data.write_bytes(zlib.compress(json.dumps({"packages": packages}).encode()))
            command += ["--add-section", f".dep-v0={data}"]
        subprocess.run([*command, "/bin/true", program], check=True)
        return run(ROOT / "scripts" / "audit-data", program)

    def test_crates_are_listed_without_build_dependencies(self) -> None:
        done = self.crates([
            {"name": "tokio", "version": "1.52.0"},
            {"name": "cc", "version": "1.2.0", "kind": "build"},
            {"name": "actix-web", "version": "4.14.0", "kind": "runtime"},
        ])
        self.assertEqual((done.returncode, done.stdout), (0, "actix-web 4.14.0\ntokio 1.52.0\n"))

    def test_a_program_without_the_list_fails(self) -> None:
        self.assertIn("no list of crates", self.crates(None).stderr)
        text = self.folder / "text"
        text.write_text("#!/bin/sh\n")
        self.assertEqual(run(ROOT / "scripts" / "audit-data", text).returncode, 1)


if __name__ == "__main__":
    unittest.main()
