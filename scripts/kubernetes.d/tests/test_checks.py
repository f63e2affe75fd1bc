"""Each check finds the fault that it is for. The faults are put into the rendered overlay `production`."""

from __future__ import annotations

import copy
import hashlib
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import check
import generate
import policies
import reach
import releases
import stores
import yaml
from overlay import Overlay

KUBECTL = Path(sys.executable).parent / "kubectl"
OVERLAY = check.ROOT / "deploy/kubernetes/overlays/production"
RENDERED = subprocess.run([KUBECTL, "kustomize", OVERLAY], capture_output=True, text=True, check=True, timeout=120).stdout
OBJECTS: list[reach.Object] = [obj for obj in yaml.safe_load_all(RENDERED) if obj]


def overlay_with(change: Callable[[Overlay], None]) -> Overlay:
    """The overlay after a change."""
    overlay = Overlay("production", "")
    overlay.objects = copy.deepcopy(OBJECTS)
    change(overlay)
    return overlay


def find(overlay: Overlay, kind: str, name: str) -> Any:
    found = overlay.one(kind, name)
    assert found, f"{kind} {name}"
    return found


def pod(overlay: Overlay, name: str) -> Any:
    return find(overlay, "Deployment", name)["spec"]["template"]["spec"]


class Faults(unittest.TestCase):
    """A fault of each kind."""

    def assert_finds(self, function: Any, change: Callable[[Overlay], None], text: str) -> None:
        found = list(function(overlay_with(change)))
        self.assertTrue(any(text in fault for fault in found), f"{text!r} is not in {found}")

    def test_the_overlay_has_no_fault(self) -> None:
        for function in check.CHECKS:
            if function is not check.schemas:
                self.assertEqual(list(function(overlay_with(lambda _: None))), [], function.__name__)

    def test_unknown_key_is_found_in_each_release(self) -> None:
        overlay = Overlay("production", "")
        overlay.objects = [copy.deepcopy(next(obj for obj in OBJECTS if obj["kind"] == "PodDisruptionBudget"))]
        overlay.objects[0]["spec"]["maxAbsent"] = 1
        self.assertEqual(len(list(check.schemas(overlay))), len(check.VERSIONS))

    def test_absent_objects_are_found(self) -> None:
        def secret(overlay: Overlay) -> None:
            find(overlay, "ExternalSecret", "postgres")["spec"]["target"]["name"] = "other"

        def address(overlay: Overlay) -> None:
            pod(overlay, "gateway-blue")["containers"][0]["env"][0]["value"] = "shortener-pods-blue:8082"

        def route(overlay: Overlay) -> None:
            find(overlay, "HTTPRoute", "linnet")["spec"]["rules"][0]["backendRefs"][0]["port"] = 80

        def variable(overlay: Overlay) -> None:
            source = {"secretKeyRef": {"name": "other", "key": "x"}}
            pod(overlay, "worker")["containers"][0]["env"].append({"name": "X", "valueFrom": source})

        self.assert_finds(check.references, secret, "the secret postgres does not exist")
        self.assert_finds(check.references, address, "names shortener-pods-blue:8082, which no service has")
        self.assert_finds(check.references, route, "the service nginx:80 does not exist")
        self.assert_finds(check.references, variable, "worker: the secret other does not exist")

    def test_services_lead_to_ports_of_pods(self) -> None:
        def selector(overlay: Overlay) -> None:
            find(overlay, "Service", "shortener-blue")["spec"]["selector"] = {"color": "red"}

        def port(overlay: Overlay) -> None:
            find(overlay, "Service", "shortener-blue")["spec"]["ports"][0]["targetPort"] = "http"

        self.assert_finds(check.service_ports, selector, "selects no pod")
        self.assert_finds(check.service_ports, port, "has no port http/TCP")

    def test_promises_of_pods(self) -> None:
        changes: list[tuple[Callable[[Any], Any], str]] = [
            (lambda spec: spec.pop("automountServiceAccountToken"), "gets a token"),
            (lambda spec: spec.pop("serviceAccountName"), "no service account of its own"),
            (lambda spec: spec["containers"][0]["securityContext"].pop("readOnlyRootFilesystem"), "readOnlyRootFilesystem must be True"),
            (lambda spec: spec["containers"][0].pop("readinessProbe"), "lacks a readinessProbe"),
            (lambda spec: spec["containers"][0]["resources"].pop("limits"), "lacks resources.limits.memory"),
            (lambda spec: spec.update(terminationGracePeriodSeconds=30), "is killed after 30 s, but may take 36.5 s"),
            (lambda spec: spec["containers"][0].pop("lifecycle"), "must serve for 5 s"),
            (lambda spec: spec["containers"][0]["readinessProbe"]["httpGet"].update(path="/readyz"), "with all others and all cached"),
            (lambda spec: spec["containers"][0]["livenessProbe"]["httpGet"].update(path="/readyz"), "a restart does not repair"),
            (lambda spec: spec.pop("topologySpreadConstraints"), "is not spread"),
            (lambda spec: spec["topologySpreadConstraints"][1].update(whenUnsatisfiable="DoNotSchedule"), "stays pending"),
            (lambda spec: spec["topologySpreadConstraints"][1].pop("nodeTaintsPolicy"), "counts nodes that it may not run on"),
        ]
        for change, text in changes:
            with self.subTest(text):
                # The containers' faults end the loop earlier when a probe is missing.
                function = check.promises
                if text.startswith("lacks a"):
                    function = lambda overlay: check.container_faults(  # noqa: E731
                        "Deployment", pod(overlay, "shortener-blue")["containers"][0]
                    )
                self.assert_finds(function, lambda overlay, change=change: change(pod(overlay, "shortener-blue")), text)

        def budget(overlay: Overlay) -> None:
            overlay.objects.remove(find(overlay, "PodDisruptionBudget", "nginx"))

        self.assert_finds(check.promises, budget, "nginx: has 0 disruption budgets")

    def test_scaling_fits_the_database(self) -> None:
        def connections(overlay: Overlay) -> None:
            find(overlay, "Cluster", "postgres")["spec"]["postgresql"]["parameters"]["max_connections"] = "340"

        def target(overlay: Overlay) -> None:
            find(overlay, "HorizontalPodAutoscaler", "nginx")["spec"]["metrics"].pop()

        self.assert_finds(check.scaling, connections, "up to 348 connections to PostgreSQL, which allows 340")
        self.assert_finds(check.scaling, connections, "restore-test.sh must have the max_connections")
        self.assert_finds(check.scaling, target, "instead of 70 % of CPU and 80 % of memory")

    def test_settings_images_and_colors(self) -> None:
        def setting(overlay: Overlay) -> None:
            pod(overlay, "worker")["containers"][0]["env"].append({"name": "LINNET__CACHE__L1_SIZE", "value": "1"})

        def image(overlay: Overlay) -> None:
            pod(overlay, "nginx")["containers"][0]["image"] = "nginxinc/nginx-unprivileged:1.30.5"

        def digest(overlay: Overlay) -> None:
            pod(overlay, "worker")["containers"][0]["image"] = "ghcr.io/linnet-url/linnet/shortener:latest"

        def color(overlay: Overlay) -> None:
            find(overlay, "Rollout", "nginx")["metadata"]["labels"]["color"] = "green"

        def other(overlay: Overlay) -> None:
            pod(overlay, "gateway-green")["containers"][0]["env"][0]["value"] = "shortener-pods-blue:8083"

        self.assert_finds(check.known_settings, setting, "LINNET__CACHE__L1_SIZE is no setting")
        self.assert_finds(check.images, image, "differs from deploy/compose.yaml")
        self.assert_finds(check.images, digest, "has no digest")
        self.assert_finds(releases.colors, color, "the Rollout judges another color than blue")
        self.assert_finds(releases.colors, other, "which is not of its color")

    def test_sentinels_are_reached_by_every_process_and_kept_apart(self) -> None:
        def label(overlay: Overlay) -> None:
            del find(overlay, "RedisSentinel", "redis")["metadata"]["labels"]

        def url(overlay: Overlay) -> None:
            data = find(overlay, "ExternalSecret", "redis-worker")["spec"]["target"]["template"]["data"]
            data["url"] = "redis://worker:{{ .password | urlquery }}@redis-master:6379/0"

        def one_name(overlay: Overlay) -> None:
            data = find(overlay, "ExternalSecret", "redis-worker")["spec"]["target"]["template"]["data"]
            data["url"] = "redis+sentinel://worker:{{ .password | urlquery }}@redis-sentinel:26379/linnet/0"

        def edge(overlay: Overlay) -> None:
            overlay.objects.remove(find(overlay, "NetworkPolicy", "sentinel-from-migrate"))

        def timeout(overlay: Overlay) -> None:
            find(overlay, "RedisSentinel", "redis")["spec"]["redisSentinelConfig"]["failoverTimeout"] = "10000"

        # The labels of the operator alone: no policy and no affinity selects them.
        self.assert_finds(stores.operators, label, "no policy names its pods")
        self.assert_finds(stores.affinities, label, "is kept apart from pods with other labels")
        self.assert_finds(stores.sentinels, url, "redis-worker: redis://worker")
        self.assert_finds(stores.sentinels, one_name, "must list redis-sentinel-0.redis-sentinel-headless:26379")
        self.assert_finds(stores.sentinels, edge, "migrate: mounts redis-shortener, but may not connect to redis-sentinel:26379")
        self.assert_finds(stores.sentinels, timeout, "failoverTimeout must be a minute or more")

    def test_config_maps_of_resources_of_operators_exist(self) -> None:
        def absent(overlay: Overlay) -> None:
            find(overlay, "RedisReplication", "redis")["spec"]["redisConfig"]["additionalRedisConfig"] = "redis-config"

        self.assert_finds(check.references, absent, "RedisReplication redis: the config map redis-config does not exist")

    def test_a_setting_reaches_one_color(self) -> None:
        def shared(overlay: Overlay) -> None:
            name = pod(overlay, "gateway-blue")["containers"][0]["envFrom"][0]["configMapRef"]["name"]
            pod(overlay, "gateway-green")["containers"][0]["envFrom"][0]["configMapRef"]["name"] = name

        def other(overlay: Overlay) -> None:
            next(obj for obj in overlay.of("ConfigMap") if obj["metadata"]["name"].startswith("worker-settings"))["data"][
                "LINNET__PUBLIC__BASE_URL"
            ] = "https://other.example"

        self.assert_finds(releases.settings_of_colors, shared, "gateway-green: shares its settings with the color blue")
        def lost(overlay: Overlay) -> None:
            settings = next(obj for obj in overlay.of("ConfigMap") if obj["metadata"]["name"].startswith("worker-settings"))
            del settings["data"]["LINNET__JOBS__UPLOAD_STORE"]

        self.assert_finds(releases.settings_of_colors, other, "LINNET__PUBLIC__BASE_URL differs")
        def types(overlay: Overlay) -> None:
            for obj in overlay.of("ConfigMap"):
                if "settings" in obj["metadata"]["name"] and not obj["metadata"]["name"].startswith("nginx"):
                    obj["data"]["LINNET__PUBLIC__PROBLEM_TYPES_URL"] = "https://problems.example"

        self.assert_finds(releases.settings_of_colors, lost, "worker: lacks LINNET__JOBS__UPLOAD_STORE")
        self.assert_finds(releases.settings_of_colors, types, "nginx: lacks LINNET__PUBLIC__PROBLEM_TYPES_URL")

    def test_fields_of_the_controller_of_a_rollout_are_left_to_it(self) -> None:
        def selector(overlay: Overlay) -> None:
            find(overlay, "Service", "nginx-canary")["spec"]["selector"] = {"app.kubernetes.io/name": "nginx"}

        def window(overlay: Overlay) -> None:
            del find(overlay, "Rollout", "nginx")["spec"]["rollbackWindow"]

        def label(overlay: Overlay) -> None:
            pod(overlay, "nginx")["topologySpreadConstraints"][1]["matchLabelKeys"] = ["pod-template-hash"]

        self.assert_finds(releases.route_owners, selector, "Service nginx-canary: must have no selector")
        self.assert_finds(releases.route_owners, window, "a return takes all steps again")
        self.assert_finds(releases.route_owners, label, "have no label pod-template-hash")

    def test_the_migration_comes_after_what_it_needs(self) -> None:
        def before(overlay: Overlay) -> None:
            find(overlay, "Job", "migrate")["metadata"]["annotations"]["argocd.argoproj.io/hook"] = "PreSync"

        def wave(overlay: Overlay) -> None:
            del find(overlay, "Cluster", "postgres")["metadata"]["annotations"]

        def retries(overlay: Overlay) -> None:
            find(overlay, "Job", "migrate")["spec"]["backoffLimit"] = 3

        self.assert_finds(releases.order, before, "PreSync runs before all that it needs")
        self.assert_finds(releases.order, wave, "Cluster postgres: must be in a wave before the migration")
        self.assert_finds(releases.order, retries, "gives up before the stores")

    def test_postgresql_is_verified(self) -> None:
        def url(overlay: Overlay) -> None:
            data = find(overlay, "ExternalSecret", "postgres")["spec"]["target"]["template"]["data"]
            data["url"] = "postgres://linnet:{{ .password | urlquery }}@postgres-rw:5432/linnet"

        def absent(overlay: Overlay) -> None:
            volumes = pod(overlay, "worker")["volumes"]
            next(volume for volume in volumes if volume["name"] == "authorities")["projected"]["sources"].pop()

        self.assert_finds(stores.tls, url, "verifies no certificate")
        self.assert_finds(stores.tls, url, "postgres: url does not follow a failover")

        def exporter(overlay: Overlay) -> None:
            data = find(overlay, "ExternalSecret", "postgres-exporter")["spec"]["target"]["template"]["data"]
            data["uri"] = data["uri"].replace("verify-full", "require")

        def plain(overlay: Overlay) -> None:
            data = find(overlay, "ExternalSecret", "redis-worker")["spec"]["target"]["template"]["data"]
            data["url"] = "redis://worker:{{ .password | urlquery }}@{{ .host }}:6379/0"

        self.assert_finds(stores.tls, absent, "worker: lacks the CA of PostgreSQL")
        self.assert_finds(stores.tls, exporter, "postgres-exporter: uri of PostgreSQL verifies no certificate")
        self.assert_finds(stores.tls, plain, "redis-worker: url of Redis is not encrypted")

    def test_no_route_ends_a_stream(self) -> None:
        def absent(overlay: Overlay) -> None:
            del find(overlay, "HTTPRoute", "linnet")["spec"]["rules"][0]["timeouts"]

        self.assert_finds(releases.routes, absent, "must disable both timeouts")

    def test_network_differs_from_the_page(self) -> None:
        def wider(overlay: Overlay) -> None:
            find(overlay, "NetworkPolicy", "gateway-from-nginx")["spec"]["ingress"][0]["from"] = [{"podSelector": {}}]
            find(overlay, "NetworkPolicy", "nginx-to-gateway")["spec"]["podSelector"] = {}

        def lost(overlay: Overlay) -> None:
            overlay.objects.remove(find(overlay, "NetworkPolicy", "worker-to-redis"))

        def open_(overlay: Overlay) -> None:
            overlay.objects.remove(find(overlay, "NetworkPolicy", "default-deny"))

        def mistyped(overlay: Overlay) -> None:
            find(overlay, "NetworkPolicy", "nginx-to-shortener")["spec"]["podSelector"]["matchLabels"] = {"app": "nginx"}

        self.assert_finds(check.network, wider, "an unknown pod, gateway-blue, gateway-green, migrate, nginx, postgres,")
        self.assert_finds(check.network, lost, "lists what the policies do not allow")
        self.assert_finds(check.network, open_, "the policies allow")
        self.assert_finds(policies.selectors, mistyped, "nginx-to-shortener: selects no pod")


    def test_policies_without_effect_and_edges_with_one_end(self) -> None:
        def end(overlay: Overlay) -> None:
            rule = find(overlay, "NetworkPolicy", "nginx-to-shortener")["spec"]["egress"][0]
            rule["to"][0]["podSelector"]["matchLabels"] = {"app": "shortener"}

        def port(overlay: Overlay) -> None:
            find(overlay, "NetworkPolicy", "shortener-from-nginx")["spec"]["ingress"][0]["ports"][0]["port"] = 8085

        def protocol(overlay: Overlay) -> None:
            find(overlay, "NetworkPolicy", "nginx-to-shortener")["spec"]["egress"][0]["ports"][0]["protocol"] = "UDP"

        def source(overlay: Overlay) -> None:
            overlay.objects.remove(find(overlay, "NetworkPolicy", "worker-to-redis"))

        def target(overlay: Overlay) -> None:
            overlay.objects.remove(find(overlay, "NetworkPolicy", "redis-from-worker"))

        def labels(overlay: Overlay) -> None:
            rule = find(overlay, "NetworkPolicy", "nginx-from-proxy")["spec"]["ingress"][0]
            rule["from"][0]["namespaceSelector"] = {"matchLabels": {"team": "proxies"}}

        self.assert_finds(policies.selectors, end, "nginx-to-shortener: a rule's to selects no pod")
        self.assert_finds(policies.selectors, port, "shortener-from-nginx: no pod of the rule listens on 8085/TCP")
        self.assert_finds(policies.selectors, protocol, "nginx-to-shortener: no pod of the rule listens on 8082/UDP")
        self.assert_finds(policies.half_edges, source, "redis-from-worker: allows worker to redis:6379, but the other end does not")
        self.assert_finds(policies.half_edges, target, "worker-to-redis: allows worker to redis:6379, but the other end does not")
        self.assert_finds(policies.evaluable, labels, "nginx-from-proxy: must name other namespaces by kubernetes.io/metadata.name")

    def test_networks_that_a_policy_names_are_in_the_table(self) -> None:
        def narrow(overlay: Overlay) -> None:
            rule = find(overlay, "NetworkPolicy", "restore-test-to-bucket")["spec"]["egress"][0]
            rule["to"] = [{"ipBlock": {"cidr": "10.40.8.0/24"}}, {"ipBlock": {"cidr": "fd00::/8"}}]
            rule["ports"] = [{"port": 5000, "endPort": 6000}]

        def world(overlay: Overlay) -> None:
            rule = find(overlay, "NetworkPolicy", "restore-test-to-bucket")["spec"]["egress"][0]
            rule["to"] = [{"ipBlock": {"cidr": "::/0"}}]

        self.assert_finds(check.network, narrow, "| restore-test | 10.40.8.0/24, fd00::/8 | 5000, 5432, 6000 |")
        self.assert_finds(check.network, world, "| restore-test | the internet (IPv6) | 443 |")


class Users(unittest.TestCase):
    """The users of Redis from the four documented passwords."""

    def test_the_operator_of_redis_logs_in_as_the_default_user(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for role in ("gateway", "shortener", "worker", "operator"):
                (Path(folder) / f"{role}-password").write_text(f"password-of-{role}")
            command = [check.ROOT / "scripts/kubernetes", "redis-users", folder]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        users = {line.split()[1]: line.split()[3] for line in done.stdout.splitlines()}
        expected = {"default": "operator", "gateway": "gateway", "shortener": "shortener", "worker": "worker"}
        self.assertEqual(
            users, {user: "#" + hashlib.sha256(f"password-of-{role}".encode()).hexdigest() for user, role in expected.items()}
        )


class Policies(unittest.TestCase):
    """The evaluation of policies, by the rules of Kubernetes."""

    def test_blocks_ports_and_namespaces(self) -> None:
        ours, other = reach.Peer("a", {"x": "1"}), reach.Peer("b", {"x": "1"}, "elsewhere")
        world = reach.Peer("w", address=reach.INTERNET)
        block = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}
        self.assertTrue(reach.matches(block, world, "linnet"))
        # Some clusters have pods in other private networks.
        self.assertTrue(reach.matches(block, ours, "linnet"))
        block["ipBlock"]["except"] += ["172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"]  # type: ignore[index]
        self.assertFalse(reach.matches(block, ours, "linnet"))
        self.assertTrue(reach.matches({"podSelector": {}}, ours, "linnet"))
        self.assertFalse(reach.matches({"podSelector": {}}, other, "linnet"))
        self.assertTrue(reach.matches({"namespaceSelector": {}}, other, "linnet"))
        self.assertTrue(reach.has_port([{"port": 10, "endPort": 20}], reach.Port(15)))
        self.assertFalse(reach.has_port([{"port": 53, "protocol": "UDP"}], reach.Port(53)))
        self.assertTrue(reach.has_port([{"port": "admin"}], reach.Port(9, name="admin")))

    def test_a_pod_without_a_policy_is_open(self) -> None:
        policy = {"kind": "NetworkPolicy", "metadata": {}, "spec": {"podSelector": {"matchLabels": {"x": "1"}}}}
        network = reach.Network([policy])
        closed, open_ = reach.Peer("a", {"x": "1"}), reach.Peer("b", {"x": "2"})
        self.assertFalse(network.may_connect(open_, closed, reach.Port(1)))
        self.assertTrue(network.may_connect(closed, open_, reach.Port(1)))


class Generated(unittest.TestCase):
    """The copies of other folders."""

    def test_rules_about_one_server_are_left_out(self) -> None:
        rules = yaml.safe_load(generate.prometheus_rule())
        text = str(rules)
        self.assertNotIn("node_", text)
        self.assertNotIn("ServerDrifted", text)
        self.assertIn("ShortenerDown", text)

    def test_dropped_series_are_those_of_prometheus_yml(self) -> None:
        monitors = {obj["metadata"]["name"]: obj for obj in yaml.safe_load_all(generate.pod_monitors())}
        endpoint = monitors["shortener"]["spec"]["podMetricsEndpoints"][0]
        self.assertEqual(endpoint["metricRelabelings"][0]["sourceLabels"], ["__name__", "http_route"])


if __name__ == "__main__":
    unittest.main()
