# primus-scale. `make pretrain` and `make test` need Python 3.11, git and a C compiler. Tests that
# need more (SLURM, network namespaces) are skipped without it; .ci/run installs it.

PYTHON ?= python3.11
BIN    := .venv/bin
DATA   := data/demo
RUN    := runs/demo
ABLATION := runs/ablation
SETUP  := .venv/installed
TEST_WORKERS ?= 3

# Python keeps the byte code of what it imports, also where the environment would not have it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup pretrain packaged report docs test lint format clean
.DELETE_ON_ERROR: # shards that fail to verify lose their index, so that they are made again

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# The pip that Python 3.11 brings takes 30 s of CPU time longer to choose versions than a newer one.
# It compiles one file after the other, and tests of packages as well, which takes as long as all else
# that it does. What does not compile are templates, and code for other versions of Python.
setup: $(SETUP) ## make .venv with the pinned versions
	$(BIN)/python -m compileall -qq -j 0 -x '/tests?/|transformers/models/' .venv/lib || true

$(SETUP): setup.py constraints.txt requirements-demo.txt requirements-ingest.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --upgrade pip
	$(BIN)/pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,s3,demo,ingest,baselines,onnx,speed,docs,dev]'
	$(BIN)/pip install --no-compile --quiet --disable-pip-version-check --no-deps -r requirements-demo.txt -r requirements-ingest.txt
	touch $@

pretrain: $(DATA)/packed/train/index.json $(DATA)/packed/validation/index.json ## the built-in run, whole: data, training, few-shot table
	$(BIN)/python -m launch.ray_train --config configs/demo.yaml
	$(BIN)/primus-scale evaluate --run $(RUN) --data $(DATA)/few_shot
	@echo "encoder  $(RUN)/encoder"
	@echo "watch    $(BIN)/tensorboard --logdir $(RUN)/tensorboard"
	@echo "next     $(BIN)/primus-scale shards init folder --src DIR    # your own recordings"
	@echo "         $(BIN)/primus-scale encode --encoder $(RUN) --src SHARDS --out features.parquet"
	@echo "         $(BIN)/primus-scale export --run $(RUN) --onnx encoder.onnx"

packaged: pretrain ## the encoder in this package, made anew by the built-in run
	$(BIN)/python -m benchmarks.package_encoder --run $(RUN)

# It builds data of its own, and goes on where it was if it is stopped.
report: $(SETUP) ## the ablation of the terms on the built-in data, and its page (half an hour on 2 cores)
	$(BIN)/primus-scale study run configs/studies/ablation.yaml --out $(ABLATION)

# The builder finishes few_shot/test last, so its index says that all of the data is there.
$(DATA)/few_shot/test/index.json: | $(SETUP)
	$(BIN)/primus-scale shards build demo --out $(DATA) --overwrite

$(DATA)/packed/%/index.json: $(DATA)/few_shot/test/index.json | $(SETUP)
	$(BIN)/primus-scale shards embed --src $(DATA)/windows/$* --out $(DATA)/packed/$* \
		--video efficientnet-lite0 --text minilm --signal handcrafted --overwrite
	$(BIN)/primus-scale shards verify $(DATA)/packed/$*

# Not --quiet: that would drop the warnings that fail the build.
docs: $(SETUP) ## the documentation as a site, in build/site; a broken link or name fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# Files are dealt to the workers in their order, so each worker makes the fixtures of a file once.
# More than the 2 cores of CI: tests of SLURM, Ray and cut networks wait for some of their time.
test: $(SETUP) ## all tests, as many at a time as TEST_WORKERS says
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

lint: $(SETUP) ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(SETUP) ## let ruff reformat the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove set-up, built-in data and runs
	rm -rf .venv $(DATA) $(RUN) build *.egg-info
