# Everything that a developer types. The work is in scripts/, one file for each target.
# Variables follow the target: make run PORT=9000
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run stop clean logs up down budget monitor test test-kill test-compose test-backup test-deploy test-chaos test-cluster test-kubernetes test-terraform lint bench profile fmt sqlx-prepare mutants drill fuzz test-attack

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Build and run everything natively until Ctrl-C (PORT=8080 HOST=127.0.0.1)
	@scripts/run

stop: ## Stop what `make run` started
	@scripts/stop

clean: ## Delete the data, keys and logs of `make run` (.run/)
	@scripts/clean

logs: ## Follow the logs of `make run` (NAME=shortener for one of them)
	@scripts/logs

up: ## Build and start everything in containers (PORT=8080 HOST=127.0.0.1 PROFILES=monitoring)
	@scripts/up

down: ## Stop and remove the containers of `make up` (VOLUMES=yes deletes their data)
	@scripts/down

budget: ## Show what each container may use and what its settings allow, and check both
	@scripts/budget

monitor: ## Run Prometheus and Alertmanager for `make run` until Ctrl-C
	@scripts/monitor

drill: ## Inject a fault and check that an alert and its runbook lead to it (FAULT=name|all|list SEED=number)
	@scripts/drill

test: ## Run all lints and tests, with private servers
	@scripts/test

test-kill: ## Kill random processes under load and check that nothing acknowledged is lost (N=50 SEED= STATE=file)
	@scripts/test-kill

test-attack: ## Attack processes that have the containers' memory (about 10 min; FORM=short)
	@scripts/test-attack

test-compose: ## Test the containers from outside
	@scripts/test-compose

test-backup: ## Lose disks, restore, damage backups (about 40 min; FORM=short ONLY=name)
	@scripts/test-backup

test-deploy: ## Test deployments on a fresh server (LINNET_DROPLET=PROGRAM ONLY=init,first)
	@scripts/test-deploy

test-chaos: ## Inject faults into containers under load and check every acknowledged write (FORM=short ONLY=name WRITE=yes)
	@scripts/test-chaos

test-cluster: ## Fail nodes, networks and stores of three nodes under load and check every acknowledged write (FORM=short ONLY=name WRITE=yes)
	@scripts/test-cluster

test-terraform: ## Plan and test deploy/terraform without an account, and run Checkov (ONLY=fmt|validate|test|faults|checkov)
	@scripts/test-terraform

test-kubernetes: ## Check the manifests of deploy/kubernetes with Checkov, types of custom resources and the real programs
	@scripts/test-kubernetes

fuzz: ## Search for inputs that break a parser (TARGET=path SECONDS=600 RUNS=10000000 KEEP=yes)
	@FUZZ_SECONDS='$(SECONDS)' scripts/fuzz

lint: ## Check code, prose, spelling, links, dependencies, scripts and all configuration (scripts/lint CHECK…)
	@scripts/lint

bench: ## Measure performance and compare it with the bars (ONLY=name QUICK=1)
	@scripts/bench

profile: ## Show where one part spends its time, or what it allocates (PART=resolve HEAP=yes)
	@scripts/profile

fmt: ## Format the Rust sources
	@cargo fmt --all

sqlx-prepare: ## Rewrite .sqlx/ from the queries and migrations
	@scripts/sqlx-prepare

mutants: ## Change a crate in small ways and list what its tests do not notice (CRATE=domain FILE=l1.rs)
	@scripts/mutants
