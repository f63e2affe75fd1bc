"""One user: 90 % resolve, 8 % create, 1 % list, 1 % edit."""

import os
import random

from locust import FastHttpUser, between, task

with open(os.environ["BENCH_LIST"]) as file:
    CODES = [line.strip() for _, line in zip(range(200_000), file)]
API = {"Authorization": f"Bearer {os.environ['BENCH_KEY']}"}


class Person(FastHttpUser):
    wait_time = between(0.1, 1)
    network_timeout = 10
    connection_timeout = 10

    def on_start(self):
        self.own = []

    @task(90)
    def resolve(self):
        code = random.choice(CODES)
        with self.client.get(f"/{code}", name="GET /{code}", allow_redirects=False, catch_response=True) as answer:
            if answer.status_code != 302 or code not in (answer.headers or {}).get("location", ""):
                answer.failure(f"no redirect to the target: {answer.status_code}")

    @task(8)
    def create(self):
        body = {"original_url": f"https://www.example.com/locust/{random.getrandbits(60):x}", "title": "Created by Locust"}
        with self.client.post("/api/v1/urls", name="POST /urls", json=body, headers=API, catch_response=True) as answer:
            if answer.status_code == 201:
                self.own = [answer.json()["id"], *self.own[:9]]
            else:
                answer.failure(f"not created: {answer.status_code}")

    @task(1)
    def look_through(self):
        with self.client.get("/api/v1/urls?limit=20", name="GET /urls", headers=API, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"no list: {answer.status_code}")

    @task(1)
    def edit(self):
        if not self.own:
            return
        change = {"title": f"Edited {random.getrandbits(30):x}"}
        path = f"/api/v1/urls/{random.choice(self.own)}"
        with self.client.patch(path, name="PATCH /urls/{id}", json=change, headers=API, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"not edited: {answer.status_code}")
