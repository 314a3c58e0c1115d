# make train   sets up .venv from requirements.lock, then trains PPO on CartPole (ARGS="agent=dqn env=acrobot" trains another)
# make test    sets up, then runs the tests, two files at a time (ARGS="-k gae" chooses some, JOBS=0 is one at a time)
# make docs    builds the documentation's site in site/, warnings being errors
# make test-fast  the tests that start no process or server and learn nothing, in two to three minutes
# Also: setup, test-slow, lint, format, peers, lock, clean.
# STACK=tf221 does it on TensorFlow 2.21 instead of 2.15.1. PYTHON=/path/to/python3.11 names the interpreter to use.

STACK :=
ARGS :=
JOBS := 2
VENV := .venv$(STACK:%=-%)
LOCK := requirements$(STACK:%=-%).lock
PYTHON ?=
export PYTHON

# Packages to measure Sparring against, in an environment of their own: their requirements and TF-Agents' exclude each other.
# gymnax 1.0.1 imports six without asking for it. imitation 1.0.1 asks for an older Stable-Baselines3, and what is measured of it works with
# this one; so it and what it imports are named here, and its requirements are not followed.
PEERS := torch==2.13.0 stable-baselines3==2.9.2 gymnasium==1.3.0 jax==0.10.2 jaxlib==0.10.2 gymnax==1.0.1 flax==0.12.8 \
	optax==0.2.8 six==1.17.0 mujoco==4.0.0 imageio==2.38.1 tensorboard==2.21.0 tqdm==4.70.1
UV := uv==0.13.9
# The site is built from the source as text: it needs the extra `docs` of pyproject.toml alone, not what Sparring runs on.
DOCS = $(shell sed -n '/^docs = \[/s/[^"]*"\([^"]*\)"[^"]*/\1 /gp' pyproject.toml)

run = $(VENV)/bin/python -m
# mypy and mkdocstrings do not know the mapping of folders to packages in setup.py: links stand for it.
TYPED := $(VENV)/typed/sparring
linked = rm -rf $1 && mkdir -p $1 && \
	ln -s $(CURDIR)/agents $(CURDIR)/envs $(CURDIR)/gans $(CURDIR)/conf $(CURDIR)/research/* $1
pip = $(@D)/bin/python -m pip -qq --no-input --disable-pip-version-check

.PHONY: setup train test test-fast test-slow lint format docs peers lock clean FORCE

train: ARGS = experiment=ppo_cartpole
train: setup
	@$(run) sparring rl $(ARGS)

# In four runs, as a process keeps all that XLA has compiled in it, which after all tests is more than 10 GB; in one if ARGS names files
test: setup
	@$(if $(findstring tests/,$(ARGS)),,sh .ci/parts) $(run) pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: setup
	@$(run) pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m 'not slow and not long' $(ARGS)

test-slow: setup
	@$(run) pytest -m slow $(ARGS) || [ $$? -eq 5 ] # 5: no test is marked slow

lint: setup
	@$(run) ruff format --check .
	@$(run) ruff check .
	@$(call linked,$(TYPED))
	@MYPYPATH=$(dir $(TYPED)) $(run) mypy

format: setup
	@$(run) ruff format .
	@$(run) ruff check --fix .

setup: $(VENV)/.installed

# Two stamps, each written last, so that an interrupted set-up is done over: .ready when everything in the lock is
# installed, .installed when the project itself is, which takes a moment and is done over when pyproject.toml changes.
# setuptools comes first: two packages exist only as source, and are built with the locked one instead of any newest.
$(VENV)/.ready: $(LOCK)
	@echo "Setting up $(@D) from $(LOCK), once: a few minutes, most of it downloading"
	@sh .ci/venv $(@D)
	@sed -n '/^setuptools==/,/[^\]$$/p; /^wheel==/,/[^\]$$/p' $(LOCK) > $(@D)/build.lock
	@$(pip) install --require-hashes --no-deps -r $(@D)/build.lock
	@$(pip) install --require-hashes --no-deps --no-build-isolation -r $(LOCK)
	@echo '$(CURDIR)' > $@

$(VENV)/.installed: $(VENV)/.ready pyproject.toml
	@$(pip) install --no-deps --no-build-isolation --editable .
	@touch $@

$(LOCK):
	@echo "There is no $@. Leave STACK out for TensorFlow 2.15.1, or say STACK=tf221 for TensorFlow 2.21" >&2; exit 1

# An environment knows the folder it was made in: a moved or copied clone makes its own.
ifneq ($(shell test -x $(VENV)/bin/python && cat $(VENV)/.ready 2>&1),$(CURDIR))
$(VENV)/.ready: FORCE
endif

docs: .venv-docs/.ready
	@$(call linked,.venv-docs/source/sparring)
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict
	@echo "The site is in site/: open site/index.html"

.venv-docs/.ready: Makefile pyproject.toml
	@sh .ci/venv $(@D)
	@$(pip) install $(DOCS)
	@touch $@

peers: .venv-peers/.ready

.venv-peers/.ready: Makefile
	@sh .ci/venv $(@D)
	@$(pip) install $(PEERS)
	@$(pip) install --no-deps imitation==1.0.1 seals==0.2.1
	@touch $@

# The locks are for Linux on x86-64. Versions stay as they are unless asked: make lock ARGS=--upgrade
lock: .venv-lock/.ready
	@echo 'tensorflow==2.15.1' | $(compile) requirements.lock
	@echo 'tensorflow==2.21.*' | $(compile) requirements-tf221.lock

compile = .venv-lock/bin/uv pip compile pyproject.toml - --quiet --extra dev --generate-hashes --no-annotate \
	--python-version 3.11 --python-platform x86_64-manylinux_2_28 --custom-compile-command 'make lock' $(ARGS) --output-file

.venv-lock/.ready: Makefile
	@sh .ci/venv $(@D)
	@$(pip) install $(UV)
	@touch $@

clean:
	rm -rf .venv .venv-* build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache
