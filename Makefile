# Self-help: `make` or `make help`. Options for a verb go into ARGS, for example
#   make train ARGS='--set train.seed=1'
SHELL := /bin/bash
.DEFAULT_GOAL := help
ARGS ?=
PYTHON ?=
TORCH_INDEX ?=
RTX ?=
TARGET ?=
READY := .venv/conch-setup
CONCH := .venv/bin/conch
VERBS := dataset tune train federate compress export release serve recommend similar rate evaluate features report run lint activate rollback canary status audit gateway events gate retrain schedule demo-loop

.PHONY: help setup setup-rtx setup-flower check-tensorrt doctor demo check test loadtest bench-quality bench-serving configs clean $(VERBS)

help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Options of a verb: make train ARGS='--set train.seed=1'; see .venv/bin/conch VERB --help"

$(READY): setup.sh pyproject.toml constraints.txt
	@PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" RTX="$(RTX)" ./setup.sh

setup: $(READY) ## Make .venv with pinned packages and the Triton server (PYTHON=, TORCH_INDEX=, RTX=1 to choose)

doctor: $(READY) ## Check this machine and name what to mend
	@$(CONCH) doctor $(ARGS)

setup-rtx: ## As setup, with TensorRT for RTX (NVIDIA licence, 370 MB): graphs are compiled on the CPU
	@PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" RTX=1 ./setup.sh

setup-flower: $(READY) ## Also .venv-flower with Flower, for conch federate
	@./setup-flower.sh

check-tensorrt: $(READY) ## Compile the newest graphs with TensorRT for RTX on the CPU (after make setup-rtx)
	@$(CONCH) check-tensorrt $(ARGS)

demo: $(READY) ## MovieLens in, recommendations out of a real Triton
	@$(CONCH) demo $(ARGS)

check: $(READY) ## Format, lint, types, import arrows
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

test: $(READY) ## All tests, those against a real Triton included
	CONCH_REQUIRE=$${CONCH_REQUIRE:-triton} .venv/bin/pytest $(ARGS)

dataset: $(READY) ## Read, clean and split the events
tune: $(READY) ## Search for better settings, for example ARGS='mf'
train: $(READY) ## Train mf, gat and the ranker
federate: $(READY) ## Train mf over clients that keep their events (after make setup-flower)
compress: $(READY) ## Make the trained models small, for example ARGS='--goal max'
export: $(READY) ## Export to ONNX and prove parity; TARGET=tensorrt builds plans too, on a machine with a GPU
release: $(READY) ## Assemble a Triton release and make it live
serve: $(READY) ## Serve the live release on loopback until Ctrl-C
gateway: $(READY) ## HTTP API and demo page before Triton, until Ctrl-C
recommend: $(READY) ## Recommend, for example ARGS='196' or ARGS='--users FILE --out recs.csv'
rate: $(READY) ## Expected ratings, for example ARGS='196 50 181' (needs rating.enabled or `conch train rating`)
similar: $(READY) ## Show what is most like an item or a user: ARGS='item 50' or ARGS='user 196'
evaluate: $(READY) ## Measure the newest release on held-out events
features: $(READY) ## What each feature contributes to the ranker, and which to keep
lint: $(READY) ## Find what Triton would choke on: ARGS=FOLDER, the live repository by default
report: $(READY) ## Write one HTML page about the newest release
activate: $(READY) ## Make a release live on running servers too, for example ARGS='r000012'
rollback: $(READY) ## Go back to the release before, in under a second
canary: $(READY) ## Let a release answer a share of users first: ARGS='start', 'advance', 'abort'
status: $(READY) ## What is live, kept, blocked, half-way
audit: $(READY) ## Check the log of changes: ARGS='verify'
run: $(READY) ## dataset, train, export, release
gate: $(READY) ## Judge the newest release against the live one: blessed, or refused with reasons
retrain: $(READY) ## Learn from new labels, judge, publish or refuse: ARGS='--labels FILE'
schedule: $(READY) ## Run the loop by itself: by time, volume, drift, decay
demo-loop: $(READY) ## Simulated users, several retrains, a bad release refused, a rollback
$(VERBS):
	@$(CONCH) $@ $(if $(TARGET),--target $(TARGET)) $(ARGS)

SCENARIO ?= steady
loadtest: $(READY) ## Run a load scenario against the live release: SCENARIO=steady (see loadtests/scenarios)
	.venv/bin/python -m loadtests.run $(SCENARIO) $(ARGS)

bench-serving: $(READY) ## Ours beside bare ONNX Runtime, FastAPI and torch on the live release, in turns: ARGS='--name ml-100k'
	.venv/bin/python -m bench.serving $(ARGS)

bench-quality: $(READY) ## Ours and the peers on the same split, for example ARGS='--protocol movielens-100k'
	.venv/bin/python -m bench.quality $(ARGS)

configs: $(READY) ## Rewrite the generated files: model_repository/*/config.pbtxt, config/default.toml
	.venv/bin/python -m export.config
	$(CONCH) settings --write-default

clean: ## Delete everything that Conch wrote (var/), keep .venv
	rm -rf var
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
