# `make` alone lists the targets. All they need is Python 3.11 to 3.13 with venv, git and make; everything
# else goes into .venv and .venv-*, in exact versions; all but the other backends' and the peers' are checked by hash.
PYTHON ?= python3
RUN := .venv/bin/python -m
PIP_INSTALL := $(RUN) pip install -qq --disable-pip-version-check --no-input
LOCK := uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--prerelease disallow --generate-hashes --custom-compile-command "make lock" --extra tensorflow --extra ncnn --group build
# A file's tests stay together, since they share what is costly to make; each process holds a gigabyte. In which order
# files come is said in tests/conftest.py.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# A `user = true` in somebody's pip settings would send every package past the private .venv.
export PIP_USER := 0
MAKEFLAGS += --no-print-directory

.DEFAULT_GOAL := help
.PHONY: help demo test test-backends test-app test-scale notebooks lint benchmarks docs lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

demo: .venv/.demo  ## train a classifier of solar cells, then a model that draws digits; both from real data
	.venv/bin/safelight transfer train elpv --output runs/demo-transfer --overwrite
	.venv/bin/safelight vae train mnist --output runs/demo-vae --minutes 2 --overwrite
	@echo
	.venv/bin/safelight report runs/demo-transfer runs/demo-vae --output runs/demo.html
	@echo "Open it in a browser: runs/demo.html"

test: .venv/.dev  ## all tests but those marked `network` (the quick ones alone: .venv/bin/pytest)
	.venv/bin/safelight assets fetch vgg16-imagenet-notop elpv mnist
	$(RUN) pytest -m "not network" $(PARALLEL)

# Their own environment: with three backends in one, nothing says which of them was tested.
ON_BACKENDS := -m "not slow and not network and not one_backend" tests/vae tests/gan tests/generative tests/export tests/transfer/test_explanations.py tests/transfer/test_references.py
# Its convolutions and its Adam for frozen and trained parts are our own (channels_last.py).
ON_PYTORCH := $(addprefix tests/transfer/test_, channels_last.py models.py features.py fine_tuning.py training.py)
# What runs once is not worth a compiler's best efforts.
IN_A_HURRY := --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true
test-backends: .venv-backends/.made  ## the tests of vae and gan, of explanations and of exports on JAX and on PyTorch, of transfer's trainings on PyTorch, and those of OpenVINO
	KERAS_BACKEND=jax XLA_FLAGS="$(IN_A_HURRY)" .venv-backends/bin/python -m pytest $(ON_BACKENDS) $(PARALLEL)
	KERAS_BACKEND=torch .venv-backends/bin/python -m pytest $(ON_BACKENDS) $(ON_PYTORCH) $(PARALLEL)
	KERAS_BACKEND=tensorflow .venv-backends/bin/python -m pytest -m "not network" -k "openvino or another_backend" \
	  tests/test_telemetry.py tests/transfer/test_engines.py tests/export $(PARALLEL)

# Its own environment: Gradio wants an older Pillow than the one that all else is tested with.
test-app: .venv-app/.made  ## the tests of app, explorer and the report's page, in Chromium too where there is one (SAFELIGHT_CHROMIUM, or on the PATH)
	.venv/bin/safelight assets fetch onnxruntime-web
	.venv-app/bin/python -m pytest -m "not network" tests/app tests/test_cli_serve.py tests/explorer/test_browser.py \
	  tests/report/test_browser.py $(PARALLEL)

# Its own environment: Ray, pyarrow and pandas are half a gigabyte that nothing else needs.
test-scale: .venv-scale/.made  ## the tests of many pictures and of a cluster: Ray with two workers on this machine
	.venv-scale/bin/python -m pytest -m "not network" -k "cluster or parquet or remote or test_tables" \
	  tests/scale tests/transfer/test_volume.py tests/test_tables.py tests/test_remote.py

notebooks: .venv/.dev  ## run the notebooks from top to bottom and keep their pictures (half an hour, or more on a processor without bfloat16)
	.venv/bin/python notebooks/tools/execute.py notebooks/[0-9]*.py

lint: .venv/.dev  ## style, types, and who may import whom
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	.venv/bin/lint-imports --no-logo

# A benchmark is named after its claim, with underscores; benchmarks/ holds single words that help them, too.
benchmarks: .venv/.dev .venv-torch/.made .venv-backends/.made .venv-app/.made .venv-scale/.made  ## every benchmark with its defaults (hours; keep the machine quiet); benchmarks/README.md has the flags of the tables
	@set -e; for script in benchmarks/*_*.py benchmarks/report.py; do \
	  case $$script in *volume_cluster*) python=.venv-scale/bin/python;; *) python=.venv/bin/python;; esac; \
	  echo "$$script"; $$python "$$script"; done

docs: .venv/.dev  ## reference of all public functions as web pages, in docs/_build
	$(RUN) pdoc --docformat google --output-directory docs/_build safelight

lock: .venv/.dev  ## choose the newest versions again, within the ranges of pyproject.toml
	$(PIP_INSTALL) uv
	.venv/bin/$(LOCK) --upgrade --group dev --output-file requirements/dev.txt
	.venv/bin/$(LOCK) --constraint requirements/dev.txt --output-file requirements/demo.txt
	cp requirements/dev.txt requirements/app.txt  # its versions are kept where they can be
	.venv/bin/$(LOCK) --extra app --group dev --group browser --output-file requirements/app.txt
	cp requirements/dev.txt requirements/scale.txt
	.venv/bin/$(LOCK) --extra scale --group dev --output-file requirements/scale.txt

clean:  ## remove .venv* and everything made from the sources; runs/ and fetched assets stay
	rm -rf .venv .venv-torch .venv-backends .venv-app .venv-scale build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find src tests benchmarks notebooks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

.venv/.demo: requirements/demo.txt pyproject.toml
	@PYTHON="$(PYTHON)" sh requirements/make_venv.sh
	@echo "Installing the locked packages into .venv (once; TensorFlow alone is 270 MB to download)"
	@touch .venv/.unfinished
	$(PIP_INSTALL) --require-hashes --only-binary :all: -r requirements/demo.txt
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@rm .venv/.unfinished && touch $@

.venv/.dev: requirements/dev.txt .venv/.demo
	$(PIP_INSTALL) --require-hashes --only-binary :all: -r requirements/dev.txt
	@touch $@

.venv-torch/.made: benchmarks/requirements-torch.txt .venv/.demo
	.venv/bin/python -m venv .venv-torch
	.venv-torch/bin/python -m pip install -qq --disable-pip-version-check --requirement $<
	@touch $@

# It sees the packages of .venv behind its own, so that only the two backends and OpenVINO are installed.
.venv-backends/.made: requirements/backends.txt .venv/.dev
	@echo "Installing JAX and PyTorch into .venv-backends (once; 300 MB to download)"
	@rm -rf .venv-backends
	@.venv/bin/python -m venv .venv-backends
	@.venv/bin/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
	  > "$$(.venv-backends/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/locked.pth"
	.venv-backends/bin/python -m pip install -qq --disable-pip-version-check --no-input --requirement $<
	@touch $@

# As .venv-backends: only what is in other versions, or not in .venv at all, is installed.
.venv-app/.made: requirements/app.txt .venv/.dev
	@echo "Installing Gradio, Playwright and axe-core into .venv-app (once; 130 MB to download)"
	@rm -rf .venv-app
	@.venv/bin/python -m venv .venv-app
	@.venv/bin/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
	  > "$$(.venv-app/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/locked.pth"
	.venv-app/bin/python -m pip install -qq --disable-pip-version-check --no-input \
	  --no-deps --require-hashes --only-binary :all: --requirement $<
	@touch $@

# As .venv-app.
.venv-scale/.made: requirements/scale.txt .venv/.dev
	@echo "Installing Ray and pyarrow into .venv-scale (once; 130 MB to download)"
	@rm -rf .venv-scale
	@.venv/bin/python -m venv .venv-scale
	@.venv/bin/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
	  > "$$(.venv-scale/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/locked.pth"
	.venv-scale/bin/python -m pip install -qq --disable-pip-version-check --no-input \
	  --no-deps --require-hashes --only-binary :all: --requirement $<
	@touch $@
