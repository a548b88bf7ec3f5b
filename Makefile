# SPDX-License-Identifier: BSD-2-Clause
# Every task of a developer or a first-time user, one target each; how the C is compiled stands in setup.py.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PREFIX ?= /usr/local
VENV := .venv
# The distribution's own python3 first: its headers and its venv module are packages that `make deps` can install.
PYTHON = $(firstword $(shell for python in /usr/bin/python3 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python; done))

# `sudo make` in a user's checkout: whatever writes into it does so as its owner. What has to be root (serving, the
# tests) is kept from writing there: no bytecode (`build` has compiled it), no caches, result files made beforehand.
OWNER := $(shell stat -c %u .)
ifeq ($(shell id -u)$(filter 0,$(OWNER)),0)
AS_OWNER := setpriv --reuid $(OWNER) --regid $(shell stat -c %g .) --clear-groups \
	env HOME=$(or $(shell getent passwd $(OWNER) | cut -d: -f6),/nonexistent)
endif
export PYTHONDONTWRITEBYTECODE := 1

PROJECT := setup.cfg setup.py pyproject.toml cuse_netmap/engine.mk
ENGINE := $(shell find cuse_netmap -name '*.[ch]' -o -name '*.cdef' -o -name '_*_build.py')
C_FILES := $(shell find bench compat cuse_netmap docs tests -name '*.[ch]' 2>/dev/null)

include cuse_netmap/engine.mk

.PHONY: help
help: ## list the targets
	@awk -F ':.* ## ' '/^[a-z-]+:.* ## / { printf "%-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## install the system packages that are missing (root on Debian or Ubuntu), or name them and stop
	@packaging/deps $(PYTHON)

.PHONY: build
build: $(VENV)/.built ## make .venv with cuse-netmap and the developer's tools in it, and compile the C
	@$(set_up) $(VENV)/bin/python -m compileall -q cuse_netmap

# A change of the C alone compiles; a change of what the project is or needs installs anew, which compiles too.
$(VENV)/.built: $(PROJECT) $(ENGINE) | deps
	$(if $(filter $(PROJECT),$?),$(install),$(compile) build_ext --inplace)
	@$(AS_OWNER) touch $@

set_up = packaging/interruptible $(AS_OWNER)
compile = $(set_up) $(VENV)/bin/python setup.py -q
define install =
test -x $(VENV)/bin/pip || $(set_up) $(PYTHON) -m venv $(VENV)
	$(set_up) $(VENV)/bin/pip install -q --upgrade setuptools wheel cffi
	$(set_up) $(VENV)/bin/pip install -q --no-build-isolation --editable '.[test,lint]'
endef

# In a terminal, which bash knows by standard error, the daemon gets a job of its own (set -m; the exit keeps bash waiting
# for it): ctrl-C reaches it and not make, which ends with the daemon's status instead of "Interrupt". When the terminal
# is closed the daemon sees it and ends; and it ends when make or bash does, however that is (--pdeathsig).
serve = setpriv --pdeathsig TERM $(VENV)/bin/cuse-netmap serve $(ARGS)
.PHONY: run
run: private .SHELLFLAGS := --pdeathsig TERM $(SHELL) $(.SHELLFLAGS)
run: private SHELL := setpriv
run: build ## serve /dev/netmap in the foreground until ctrl-C (ARGS='--tap tap1 ...')
	@test -t 0 -a -t 2 || exec $(serve); set -m; $(serve); exit

# A file of tests is one worker's, with a /dev of its own; CUSE devices are everybody's, so there all files are.
WORKERS := $(if $(wildcard /dev/cuse),0,$(shell nproc))
# SAFEPATH: the variant under test is imported from where it was built, never by chance from the current folder.
pytest = $(AS_OWNER) mkdir -p build && $(AS_OWNER) touch build/$(1).xml && \
	helper=$$($(VENV)/bin/python -m tests.support.ways) && \
	PYTHONSAFEPATH=1 LD_PRELOAD="$(3) $$helper" $(2) $(VENV)/bin/pytest -n $(WORKERS) --dist loadfile --junit-xml build/$(1).xml $(ARGS)

.PHONY: test-deps
test-deps: deps ## install what only the tests use, too; without it some are skipped
	@packaging/deps $(PYTHON) tests

# What only programs of DPDK's need is left out where there is no libdpdk.
library = ! pkg-config --atleast-version=22.11 libdpdk 2>/dev/null || $(MAKE) --silent $(1)

.PHONY: test
test: test-deps build ## run the tests, as root to run them all (ARGS='-k poll ...'; on a slow machine PATIENCE=20)
	@$(call library,compat-files)
	@$(call pytest,junit)

.PHONY: test-sanitize
# A copy of the package under build/, all its C with the sanitizers; what the tests start inherits the environment.
# Python itself leaks at exit, so leaks are not looked for.
test-sanitize: test-deps build ## run the tests on a build with AddressSanitizer and UndefinedBehaviorSanitizer
	@CUSE_NETMAP_SANITIZE=1 $(compile) build --build-lib build/sanitize/lib
	@$(set_up) $(VENV)/bin/python -m compileall -q build/sanitize/lib
	@$(call library,compat-sanitize-files)
	@$(call pytest,junit-sanitize,\
		PYTHONPATH=$(CURDIR)/build/sanitize/lib ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1,\
		$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so))

SEED := 1
SEEDS := 20
STEPS := 2000000
.PHONY: fuzz
fuzz: build ## fuzz the engine under the sanitizers (SEED=1 SEEDS=20 STEPS=2000000)
	@$(AS_OWNER) $(VENV)/bin/python -m tests.support.fuzz $(SEED) $(SEEDS) $(STEPS)

.PHONY: deb
deb: ## build the Debian packages into build/deb (on Debian; as root it installs what that needs)
	@$(AS_OWNER) mkdir -p build && packaging/deb-deps && $(AS_OWNER) packaging/build-deb

.PHONY: guest-test
guest-test: ## install the package in guests of Debian 12 and 13 and test it there (root; SUITES='bookworm trixie')
	@$(AS_OWNER) mkdir -p build && tests/guest/run $(SUITES); status=$$?; chown -R --reference=. build; exit $$status

.PHONY: check-upstream
check-upstream: build ## run upstream netmap's own suites (NETMAP_BIN=DIR NETMAP_SRC=TREE; ARGS=SUITE...)
	@$(AS_OWNER) mkdir -p build && $(AS_OWNER) touch build/check-upstream.log
	@$(VENV)/bin/python -m tests.upstream.run --bin='$(NETMAP_BIN)' --src='$(NETMAP_SRC)' \
		--log=build/check-upstream.log $(ARGS)

.PHONY: bench
bench: build ## measure (ARGS go to bench/run.py)
	@$(VENV)/bin/python bench/run.py $(ARGS)

.PHONY: bench-deps
bench-deps: ## install what `bench` also compares with: trafgen (root on Debian or Ubuntu)
	@command -v trafgen >/dev/null || \
		DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends netsniff-ng

.PHONY: lint
lint: build ## ruff, mypy, clang-format; the compiler's warnings are errors of `build`
	$(AS_OWNER) $(VENV)/bin/ruff check
	$(AS_OWNER) $(VENV)/bin/ruff format --check
	$(AS_OWNER) $(VENV)/bin/mypy
	$(if $(C_FILES),$(VENV)/bin/clang-format --dry-run -Werror $(C_FILES))

.PHONY: format
format: build ## put all sources into shape
	$(AS_OWNER) $(VENV)/bin/ruff check --fix
	$(AS_OWNER) $(VENV)/bin/ruff format
	$(if $(C_FILES),$(AS_OWNER) $(VENV)/bin/clang-format -i $(C_FILES))

.PHONY: install-headers
install-headers: ## install net/netmap.h and its fellows below DESTDIR/PREFIX (/usr/local)
	install -d $(DESTDIR)$(PREFIX)/include/net
	install -m 644 cuse_netmap/include/net/*.h $(DESTDIR)$(PREFIX)/include/net

include compat/compat.mk

.PHONY: clean
clean: ## remove everything a target made
	rm -rf $(VENV) build dist *.egg-info cuse_netmap/bin cuse_netmap/_engine*.so cuse_netmap/_dpdk*.so
	find cuse_netmap tests bench -name __pycache__ -prune -exec rm -r {} + 2>/dev/null || true
