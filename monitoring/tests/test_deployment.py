"""deploy/compose.yaml and the versions that several files name: networks, exposure, Rust."""

from __future__ import annotations

import re
import unittest
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(text("deploy/compose.yaml"))
    return document


def members(network: str) -> set[str]:
    return {name for name, service in compose()["services"].items() if network in service["networks"]}


def mounts(volume: str) -> set[str]:
    """The services that mount a volume, with `:ro` if they cannot write it."""
    found = set()
    for name, service in compose()["services"].items():
        for mount in service.get("volumes", []):
            if mount.split(":")[0] == volume:
                found.add(name + (":ro" if mount.endswith(":ro") else ""))
    return found


class ComposeLoader(yaml.SafeLoader):
    """Reads Compose's `!override` as the list that it marks."""


def _overridden(loader: yaml.SafeLoader, node: yaml.Node) -> list[Any]:
    assert isinstance(node, yaml.SequenceNode)
    return loader.construct_sequence(node)


ComposeLoader.add_constructor("!override", _overridden)


def services(path: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(text(path), ComposeLoader)["services"]
    return found


class Sockets(unittest.TestCase):
    def test_each_edge_has_a_volume_that_only_its_two_ends_mount(self) -> None:
        gateways, shorteners = {"gateway-blue", "gateway-green"}, {"shortener-blue", "shortener-green"}
        self.assertEqual(mounts("redirects"), {"nginx:ro"} | shorteners)
        self.assertEqual(mounts("web"), {"nginx:ro"} | gateways)
        self.assertEqual(mounts("api"), {f"{name}:ro" for name in gateways} | shorteners)
        # `preflight` only gives the volume its owner.
        self.assertEqual(mounts("slots"), {"nginx", "preflight:ro"})

    def test_no_process_serves_over_a_network_what_it_serves_over_a_socket(self) -> None:
        for color in ("blue", "green"):
            gateway = compose()["services"][f"gateway-{color}"]["environment"]
            shortener = compose()["services"][f"shortener-{color}"]["environment"]
            self.assertEqual(gateway["LINNET__GATEWAY__LISTEN"], f"unix:/run/linnet/web/{color}.sock")
            self.assertEqual(gateway["LINNET__GATEWAY__REFUSALS_LISTEN"], f"unix:/run/linnet/web/{color}-refusals.sock")
            self.assertEqual(gateway["LINNET__UPSTREAM__SHORTENERS"], shortener["LINNET__SHORTENER__API_LISTEN"])
            self.assertEqual(shortener["LINNET__SHORTENER__API_LISTEN"], f"unix:/run/linnet/api/{color}.sock")
            self.assertEqual(shortener["LINNET__SHORTENER__RESOLVE_LISTEN"], f"unix:/run/linnet/redirects/{color}.sock")
            self.assertNotIn("LINNET__GATEWAY__TRUSTED_PEERS", gateway)

    def test_both_colors_differ_only_in_their_color(self) -> None:
        services = compose()["services"]
        for name in ("gateway", "shortener"):
            blue, green = (dict(services[f"{name}-{color}"]) for color in ("blue", "green"))
            self.assertEqual(green.pop("profiles"), ["green"])
            self.assertEqual(repr(blue).replace("blue", "green").replace("BLUE", "GREEN"), repr(green))


class Networks(unittest.TestCase):
    def test_each_edge_has_a_network(self) -> None:
        self.assertEqual(members("nginx-status"), {"nginx", "nginx-exporter"})
        self.assertEqual(members("dashboards"), {"nginx", "grafana"})
        self.assertEqual(members("data-exporter"), {"postgres", "postgres-exporter"})
        self.assertEqual(members("cache-exporter"), {"redis", "redis-exporter"})
        self.assertEqual(members("cache-gateway"), {"redis", "gateway-blue", "gateway-green"})
        self.assertEqual(members("front"), {"nginx"})
        self.assertEqual(members("out"), {"alertmanager"})
        public = {name for name, network in compose()["networks"].items() if not (network or {}).get("internal")}
        self.assertEqual(public, {"front", "out"})

    def test_logs_and_dashboards_share_no_network_with_linnet(self) -> None:
        product = {"gateway-blue", "gateway-green", "shortener-blue", "shortener-green", "worker", "redis", "postgres"}
        for network in compose()["networks"]:
            if members(network) & {"grafana", "loki", "alertmanager", "fluent-bit"}:
                self.assertEqual(members(network) & product, set(), network)


class Exposure(unittest.TestCase):
    def test_only_nginx_publishes_a_port(self) -> None:
        self.assertEqual([name for name, service in compose()["services"].items() if "ports" in service], ["nginx"])

    def test_grafana_is_public_only_if_asked_for(self) -> None:
        self.assertEqual(compose()["services"]["nginx"]["environment"]["LINNET_NGINX_GRAFANA"], "${LINNET_NGINX_GRAFANA:-}")
        self.assertIn("limit_req zone=linnet_grafana", text("nginx/render.sh"))

    def test_no_script_makes_a_directory_writable_for_all(self) -> None:
        for path in sorted((ROOT / "scripts").glob("*")):
            if path.is_file():
                self.assertNotRegex(path.read_text(encoding="utf-8"), r"chmod (0?777|a\+w|o\+w)", path.name)

    def test_ci_scans_the_images_of_every_profile(self) -> None:
        jobs = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]
        listed = next(step["run"] for step in jobs["list-services"]["steps"] if step.get("id") == "images")
        self.assertIn("docker compose -f deploy/compose.yaml --profile '*' config --images", listed)
        matrix = jobs["scan-services"]["strategy"]["matrix"]["image"]
        self.assertEqual(matrix, "${{ fromJSON(needs.list-services.outputs.images) }}")
        self.assertEqual(jobs["scan-services"]["steps"][0]["with"]["image-ref"], "${{ matrix.image }}")


class Logs(unittest.TestCase):
    def test_every_service_but_the_shipper_sends_its_logs_to_loki(self) -> None:
        drivers: list[dict[str, Any]] = []
        for part in ("", ".tls", ".backup"):
            defined, sent = services(f"deploy/compose{part}.yaml"), services(f"deploy/compose{part}.logs.yaml")
            # Other files only change services of compose.yaml.
            own = {name for name in defined if not part or name not in compose()["services"]}
            self.assertEqual(set(sent), own - {"fluent-bit"}, part)
            drivers += sent.values()
        self.assertEqual(drivers[0]["logging"]["driver"], "fluentd")
        for driver in drivers:
            self.assertEqual(driver, drivers[0])


class Rust(unittest.TestCase):
    def test_every_file_names_the_same_version(self) -> None:
        channel = re.search(r'channel = "([0-9.]+)"', text("rust-toolchain.toml"))
        assert channel is not None
        minor = ".".join(channel[1].split(".")[:2])
        self.assertIn(f'rust-version = "{minor}"', text("Cargo.toml"))
        for path in (".github/workflows/ci.yml", ".github/workflows/release.yml"):
            self.assertIn(f'RUST_TOOLCHAIN: "{channel[1]}"', text(path))
        self.assertEqual(re.findall(r"rust:([0-9.]+)-slim", text("deploy/Dockerfile")), [channel[1]])
        for path in ("deploy/compose.yaml", "scripts/compose-lib.sh"):
            self.assertNotIn("rust:", text(path), f"{path}: the Dockerfile alone names the image")


class Units(unittest.TestCase):
    def test_every_unit_of_linnet_is_sandboxed(self) -> None:
        units = sorted((ROOT / "deploy/systemd").glob("linnet-*.service"))
        self.assertEqual([unit.stem for unit in units], ["linnet-gateway", "linnet-migrate", "linnet-shortener", "linnet-worker"])
        for unit in units:
            lines = set(unit.read_text(encoding="utf-8").splitlines())
            for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=", "PrivateUsers=yes",
                         "SystemCallFilter=@system-service", "MemoryDenyWriteExecute=yes", "UMask=0027"):
                self.assertIn(line, lines, unit.name)


if __name__ == "__main__":
    unittest.main()
