#!/usr/bin/env python3
"""Runs the pods of a rendered overlay as containers of Docker, and opens a link through nginx.

    pods.py MANIFESTS SECRETS      the overlay `dev`, and what `scripts/kubernetes secrets` printed

It takes from the manifests what a kubelet would: images, arguments, variables, mounted files, users, read-only roots, memory,
ports, names of services and probes. Missing are what only a cluster has: scheduling, policies, the Gateway. Images are used
by tag, so it runs without a registry. Everything that it starts has a name of its own and is removed at the end.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from overlay import Overlay, containers
from reach import Object, selects, templates
from settings import size

PREFIX = f"linnet-kubernetes-{os.getpid()}"
# Pods in the order in which a kubelet's restarts would bring them up.
ORDER = ("postgres", "redis", "migrate", "shortener-blue", "gateway-blue", "worker", "nginx")
START_S = 90
# Sidecars without a stand-in or a part in a redirect.
WITHOUT = {"exporter"}


def docker(*arguments: str, timeout: int = 120) -> str:
    """The output of a command of Docker; fails with its error."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"docker {' '.join(arguments[:2])}: {done.stderr.strip()[-600:]}")
    return done.stdout.strip()


class Cluster:
    """The containers of an overlay, in a network of their own."""

    def __init__(self, overlay: Overlay, secrets: list[Object], folder: Path) -> None:
        self.overlay, self.folder = overlay, folder
        self.secrets = {
            obj["metadata"]["name"]: {key: base64.b64decode(text) for key, text in obj["data"].items()} for obj in secrets
        }
        self.started: list[str] = []
        self.volumes: set[str] = set()
        docker("network", "create", "--internal", PREFIX)

    def close(self) -> None:
        """Removes everything."""
        for name in self.started:
            subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False)
        for volume in self.volumes:
            subprocess.run(["docker", "volume", "rm", volume], capture_output=True, check=False)
        subprocess.run(["docker", "network", "rm", PREFIX], capture_output=True, check=False)

    def template(self, name: str) -> Object:
        """The pod template of a workload."""
        return next(template for obj in self.overlay.objects for found, template in templates(obj) if found == name)

    def files(self, name: str, volume: Object) -> Path:
        """A folder with the files of a volume."""
        folder = self.folder / name / volume["name"]
        folder.mkdir(parents=True, exist_ok=True)
        mode = 0o444
        for source in volume.get("projected", {}).get("sources", [volume]):
            contents: dict[str, bytes] = {}
            if secret := source.get("secret"):
                contents = self.secrets[secret.get("secretName") or secret["name"]]
                items = secret.get("items")
            else:
                config = source["configMap"]
                mode = 0o555
                items = config.get("items")
                found = self.overlay.one("ConfigMap", config["name"])
                contents = {key: text.encode() for key, text in (found or {"data": {}})["data"].items()}
            for key, path in [(item["key"], item["path"]) for item in items] if items else [(key, key) for key in contents]:
                file = folder / path
                file.write_bytes(contents[key])
                file.chmod(mode)
        folder.chmod(0o755)
        return folder

    def mounts(self, name: str, template: Object, container: Object) -> Iterator[str]:
        """The options for the volumes of a container."""
        security = template["spec"]["securityContext"]
        claims = self.overlay.one("StatefulSet", name)
        volumes = {volume["name"]: volume for volume in template["spec"].get("volumes", [])}
        for claim in (claims or {"spec": {}})["spec"].get("volumeClaimTemplates", []):
            volumes[claim["metadata"]["name"]] = {"persistentVolumeClaim": {"claimName": f"{name}-{claim['metadata']['name']}"}}
        for mount in container.get("volumeMounts", []):
            volume, path = volumes[mount["name"]], mount["mountPath"]
            if "emptyDir" in volume:
                yield from ("--tmpfs", f"{path}:uid={security['runAsUser']},gid={security['runAsGroup']},mode=0755")
            elif claim := volume.get("persistentVolumeClaim"):
                source = f"{PREFIX}-{claim['claimName']}"
                self.volumes.add(source)
                yield from ("--volume", f"{source}:{path}")
            else:
                source = str(self.files(name, volume) / mount.get("subPath", ""))
                yield from ("--volume", f"{source}:{path}:ro")

    def environment(self, container: Object) -> dict[str, str]:
        """The variables of a container, expanded."""
        values: dict[str, str] = {}
        for source in container.get("envFrom", []):
            found = self.overlay.one("ConfigMap", source["configMapRef"]["name"])
            values.update(found["data"] if found else {})
        for variable in container.get("env", []):
            text = variable.get("value", "")
            values[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda match: values[match.group(1)], text)
        return values

    def options(self, name: str, template: Object, container: Object) -> list[str]:
        """All options of `docker run`, with the image."""
        security, limits = template["spec"]["securityContext"], container["resources"]["limits"]
        options = ["--network", PREFIX, "--user", f"{security['runAsUser']}:{security['runAsGroup']}", "--read-only"]
        options += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", str(size(limits["memory"]))]
        for service in self.overlay.of("Service"):
            if selects({"matchLabels": service["spec"]["selector"]}, template["metadata"]["labels"]):
                options += ["--network-alias", service["metadata"]["name"]]
        for key, value in self.environment(container).items():
            options += ["--env", f"{key}={value}"]
        options += self.mounts(name, template, container)
        if "command" in container:
            options += ["--entrypoint", container["command"][0]]
        image = re.sub(r"@sha256:.*", "", container["image"])
        return [*options, image, *container.get("command", [])[1:], *container.get("args", [])]

    def start(self, name: str) -> None:
        """Starts a pod and waits until it is ready, or has completed."""
        template = self.template(name)
        if template["spec"].get("restartPolicy", "Always") != "Always":
            for container in containers(template):
                run = f"{PREFIX}-{name}-{container['name']}"
                self.started.append(run)
                docker("run", "--name", run, *self.options(name, template, container), timeout=180)
            return
        for container in template["spec"]["containers"]:
            if container["name"] in WITHOUT:
                continue
            run = f"{PREFIX}-{name}"
            self.started.append(run)
            docker("run", "--detach", "--name", run, *self.options(name, template, container))
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                self.wait(run, container, container[probe])

    def address(self, run: str) -> str:
        return docker("inspect", "--format", f'{{{{(index .NetworkSettings.Networks "{PREFIX}").IPAddress}}}}', run)

    def wait(self, run: str, container: Object, probe: Object) -> None:
        """Waits until a probe succeeds."""
        deadline = time.monotonic() + START_S
        last = ""
        while time.monotonic() < deadline:
            if docker("inspect", "--format", "{{.State.Running}}", run) != "true":
                break
            try:
                self.probe(run, container, probe)
                return
            except (OSError, RuntimeError) as error:
                last = str(error)
            time.sleep(0.3)
        logs = subprocess.run(["docker", "logs", "--tail", "8", run], capture_output=True, text=True, check=False)
        raise RuntimeError(f"{run}: {json.dumps(probe)} failed: {last}\n{logs.stdout}{logs.stderr}")

    def probe(self, run: str, container: Object, probe: Object) -> None:
        """One try of a probe, with its own timeout."""
        if "exec" in probe:
            docker("exec", run, *probe["exec"]["command"], timeout=10)
        elif http := probe.get("httpGet"):
            port = next(port["containerPort"] for port in container["ports"] if port["name"] == http["port"])
            url = f"http://{self.address(run)}:{port}{http['path']}"
            with urllib.request.urlopen(url, timeout=probe.get("timeoutSeconds", 1)) as response:
                response.read()


def request(url: str, key: str | None = None, body: Any = None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; redirects are not followed."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    headers = {"Content-Type": "application/json"} | ({"X-Api-Key": key} if key else {})
    data = json.dumps(body).encode() if body is not None else None
    opener = urllib.request.build_opener(Stay, urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, data, headers), timeout=10) as response:
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def redirect(cluster: Cluster) -> None:
    """Creates a key and a link, and opens it through nginx."""
    shortener = f"{PREFIX}-shortener-blue"
    made = docker(
        "exec", shortener, "/linnet-shortener", "admin", "create-key",
        "--username", "admin", "--email", "ops@example.com", "--name", "first",
    )  # fmt: skip
    key = made.splitlines()[-1]
    base = f"http://{cluster.address(f'{PREFIX}-nginx')}:8080"
    target = "https://example.com/from-a-cluster"
    status, _, body = request(f"{base}/api/v1/urls", key, {"original_url": target})
    if status != 201:
        raise RuntimeError(f"POST /api/v1/urls returned {status}: {body.decode()[:300]}")
    code = json.loads(body)["short_code"]
    status, headers, _ = request(f"{base}/{code}")
    if status not in {301, 302, 307, 308} or headers.get("location", headers.get("Location")) != target:
        raise RuntimeError(f"/{code} returned {status} to {headers.get('Location')}")
    print(f"/{code} leads to {target} ({status}), through nginx, gateway and shortener over TCP")


def main(arguments: list[str]) -> int:
    """Runs the overlay."""
    if len(arguments) != 2:
        print("usage: pods.py MANIFESTS SECRETS", file=sys.stderr)
        return 64
    overlay = Overlay("dev", Path(arguments[0]).read_text())
    secrets = [obj for obj in yaml.safe_load_all(Path(arguments[1]).read_text()) if obj]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        cluster = Cluster(overlay, secrets, Path(folder))
        try:
            for name in ORDER:
                cluster.start(name)
                print(f"{name} is {'complete' if name == 'migrate' else 'ready'}", flush=True)
            redirect(cluster)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            cluster.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
