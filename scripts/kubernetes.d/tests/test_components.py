"""Components that no overlay uses alone, and the Helm chart against the overlay `production`."""

from __future__ import annotations

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import chart
import check
import reach
import yaml
from test_checks import KUBECTL, OBJECTS


class Components(unittest.TestCase):
    """Components that no overlay of the repository has."""

    def test_managed_stores_and_dns_of_the_node_open_these_edges_only(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            source = os.path.relpath(check.ROOT / "deploy/kubernetes", folder)
            patch = [{"op": "replace", "path": "/spec/egress/0/to/0/ipBlock/cidr", "value": "10.40.64.0/18"}]
            overlay = {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "namespace": "linnet",
                "resources": [f"{source}/base"],
                "components": [f"{source}/components/managed-stores", f"{source}/components/node-dns"],
                "patches": [
                    {"target": {"kind": "NetworkPolicy", "labelSelector": "store in (postgres, redis)"}, "patch": yaml.safe_dump(patch)}
                ],
            }
            (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
            text = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=True, timeout=120).stdout
        objects = [obj for obj in yaml.safe_load_all(text) if obj]
        network, ours = reach.Network(objects), {peer.name: peer for peer in reach.peers_of(objects)}
        store, resolver = reach.Peer("store", address="10.40.65.7"), reach.Peer("resolver", address="169.254.20.10")
        world = reach.Peer("world", address=reach.INTERNET)
        for name, ports in (("shortener-blue", {5432, 6379}), ("worker", {5432, 6379}), ("migrate", {5432, 6379}), ("gateway-blue", {6379})):
            for port in (5432, 6379):
                self.assertEqual(network.may_connect(ours[name], store, reach.Port(port)), port in ports, f"{name} {port}")
                self.assertFalse(network.may_connect(ours[name], world, reach.Port(port)), f"{name} {port}")
            self.assertTrue(network.may_connect(ours[name], resolver, reach.Port(53, "UDP")), name)
            self.assertFalse(network.may_connect(ours[name], resolver, reach.Port(80)), name)


class Chart(unittest.TestCase):
    """The chart against the overlay."""

    def test_a_changed_template_and_a_lost_object_are_found(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "chart"
            chart.write(OBJECTS, path)
            expected = {chart.identity(obj): chart.normal(obj) for obj in OBJECTS if chart.in_chart(obj)}
            scaled = path / "templates/scaledobject-worker.yaml"
            scaled.write_text(scaled.read_text().replace("threshold: '5'", "threshold: '6'"))
            (path / "templates/service-nginx.yaml").unlink()
            (path / "values.yaml").write_text((path / "values.yaml").read_text() + "unused: text\n")
            found = "\n".join(chart.differences(expected, chart.rendered(path)))
        self.assertIn("Service nginx: only kustomize renders it", found)
        self.assertIn("threshold: '5' with kustomize, '6' with Helm", found)


    def test_a_hash_of_all_values_and_a_hash_that_no_pod_has_are_found(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "chart"
            chart.write(OBJECTS, path)
            self.assertEqual(list(chart.hashes(path)), [])
            for file in (path / "templates").glob("*.yaml"):
                text = file.read_text().replace('{{ include "linnet.data.nginx-files" . |', "{{ .Values | toJson |")
                if file.name.startswith("configmap"):
                    text = text.replace('{{ include "linnet.data.redis-config" . |', '{{ "other" |')
                file.write_text(text)
            found = "\n".join(chart.hashes(path))
        self.assertIn("nginx-files: another image changes its name", found)
        self.assertRegex(found, "redis-config-[0-9a-f]{10}: no pod has this name")


if __name__ == "__main__":
    unittest.main()
