# Everything that a developer types. The work is in scripts/, one file a target.
# Variables go behind the target: make run PORT=9000
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run stop clean logs up down budget monitor test test-compose lint bench fmt sqlx-prepare

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Build and run everything until Ctrl-C (PORT=8080 HOST=127.0.0.1)
	@scripts/run

stop: ## Stop what `make run` started
	@scripts/stop

clean: ## Remove the data, keys and logs of `make run` (.run/)
	@scripts/clean

logs: ## Follow the logs of `make run` (NAME=shortener for one)
	@scripts/logs

up: ## Build and run everything in containers (PORT=8080 HOST=127.0.0.1 PROFILES=monitoring)
	@scripts/up

down: ## Stop and remove the containers of `make up` (VOLUMES=yes: their data, too)
	@scripts/down

budget: ## What the containers may take of the machine's memory
	@scripts/budget

monitor: ## Prometheus and Alertmanager beside `make run`, until Ctrl-C
	@scripts/monitor

test-compose: ## The containers, tried from outside
	@scripts/test-compose

test: ## Lints, unit, store and system tests, with servers of their own
	@scripts/test

lint: ## Formatting, clippy, cargo-deny, shellcheck; configuration of nginx, monitoring, CI, containers
	@scripts/lint

bench: ## Measure, and compare with the bars (ONLY=name QUICK=1)
	@scripts/bench

fmt: ## Format the Rust sources
	@cargo fmt --all

sqlx-prepare: ## Rewrite .sqlx/ from the queries and migrations
	@scripts/sqlx-prepare
