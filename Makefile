# make run      two demo Dovecot backends and proxyd on loopback ports, until Ctrl-C
# make test     everything CI runs, in two lanes, with a table of where the time went
# make build    the release binary, .build/release/proxyd; TRAITS=PostgreSQL,LDAP for sources that need a library more
# make install  DESTDIR= and PREFIX= as usual
# make lint     style, and warnings as errors
#
# Shorter loops: `make dev` builds and runs the unit tests of what has changed; make unit, address, thread, integration, counts,
# fuzz are the steps of `make test`, each by itself. TESTS="test_faults.py -k name" for some of the integration tests,
# FUZZ_SECONDS=600 for long fuzzing. `make test-long` is what takes longer than CI has time for: naps, storms, fuzzing.

SHELL := /bin/bash
SWIFT ?= swift
# What the integration tests and the counts need built; `make test` has built it already, and says so with BUILT=1.
BUILDS := $(if $(BUILT),,build build-all)
# Debian's: with it come pytest and what else the tests import.
PYTHON ?= /usr/bin/python3
PREFIX ?= /usr/local
DESTDIR ?=
SYSCONFDIR ?= /etc
UNITDIR ?= /lib/systemd/system
FUZZ_SECONDS ?= 12
BINARY := .build/release/proxyd
# Traits to build with: make build TRAITS=PostgreSQL,LDAP (see docs/Sources.md).
TRAITS ?=
# The integration tests to run, as pytest takes them, and how many at once: they wait more than they work.
TESTS ?=
WORKERS ?= 6
PYTEST := $(PYTHON) -m pytest -q -p no:cacheprovider -W error::ResourceWarning -n $(WORKERS) --dist loadgroup

# The package manager names traits in an order that differs from plan to plan, and builds everything anew where it does. Swift
# hashes alike in each process with this; tests run without it.
BUILD := SWIFT_DETERMINISTIC_HASHING=1 $(SWIFT) build
# It does so, too, when PATH has changed. So it always gets the same.
SWIFT_FOLDER := $(patsubst %/,%,$(dir $(shell command -v $(SWIFT))))
export PATH := $(if $(SWIFT_FOLDER),$(SWIFT_FOLDER):)/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: all build build-all run test test-long dev unit address thread sanitize integration naps counts fuzz lint install \
  install-files packages packages-run packages-test bench clean path
.NOTPARALLEL:

all: build

# The Swift runtime is linked in: 4 MB resident instead of 15, and nothing to install beside the binary.
build: packages
	$(BUILD) -c release --static-swift-stdlib --product proxyd $(if $(TRAITS),--traits $(TRAITS))

# The same with every source there is, for the tests of those.
build-all:
	@etc/demo/packages build-all
	$(BUILD) -c release --static-swift-stdlib --product proxyd --enable-all-traits --scratch-path .build-all

run: packages-run build
	$(PYTHON) etc/demo/run.py

test: packages
	@etc/demo/packages test
	@$(PYTHON) Tests/gate.py

test-long: packages-test build build-all
	$(MAKE) naps
	cd Tests/Integration && FLEET_SECONDS=600 $(PYTEST) -n 0 test_fleet.py -k Invariant
	$(MAKE) fuzz FUZZ_SECONDS=600

# An incremental build, and the unit tests of the modules that differ from HEAD and of those that use them.
dev: packages-test
	@SWIFT=$(SWIFT) Tests/dev

unit: packages-test
	SWIFT_BACKTRACE=enable=no $(SWIFT) test

# All unit tests, with every trait, under AddressSanitizer. In a build folder of its own: the libraries are instrumented too.
address: FLAGS := --enable-all-traits --sanitize=address --scratch-path .build-address -Xswiftc -gline-tables-only
address: packages-test
	$(BUILD) --build-tests $(FLAGS)
	SWIFT_BACKTRACE=enable=no ASAN_OPTIONS="detect_leaks=0" $(SWIFT) test --skip-build $(FLAGS)

# What shares memory, under ThreadSanitizer: all of ProxyCore but values and what one thread does alone, and the control
# server. PROXYD_TSAN: locks the sanitizer can see.
thread: export PROXYD_TESTS := threads
thread: FLAGS := --enable-all-traits --sanitize=thread --scratch-path .build-thread -Xswiftc -DPROXYD_TSAN \
  -Xswiftc -gline-tables-only
thread: packages-test
	$(BUILD) --build-tests $(FLAGS)
	SWIFT_BACKTRACE=enable=no TSAN_OPTIONS="halt_on_error=1" $(SWIFT) test --skip-build $(FLAGS) \
	  --filter 'ProxyCoreTests|ControlServerTests' --skip 'RelayTests|RingTests|BoundedLoadTests' \
	  --skip 'HealthTests|UserTableTests|SQLQueryTests|SQLRowsTests|PerditionLineTests|PerditionRulesTests|EvictionQuotaTests'
	Tests/Sanitizers/run .build-thread/debug/

sanitize: address thread

integration: packages-test $(BUILDS)
	cd Tests/Integration && $(PYTEST) --durations=10 $(TESTS)

# The integration tests with a proxyd that naps around its system calls: finds those that look too soon. Takes long.
naps: export NAPS := $(CURDIR)/.build/naps.so
naps: export NAP_LOG ?= 200
naps: export NAP_SEND ?= 3
naps: export NAP_CLOSE ?= 5
naps: packages-test build build-all
	cc -O1 -Wall -Werror -shared -fPIC -o $(NAPS) Tests/Integration/naps.c
	cd Tests/Integration && $(PYTEST) $(TESTS)

# Instructions, allocations and system calls of a login, a command and a chunk, against Tests/Counts/expected.json.
# ACCEPT=1 writes what was counted there; ROWS="plain login" counts some only.
counts: packages-test $(filter build,$(BUILDS))
	$(PYTHON) Tests/Counts/counts.py $(if $(ACCEPT),--accept) $(if $(ROWS),"$(ROWS)")

fuzz: packages-test
	SWIFT_BACKTRACE=enable=no Tests/Fuzz/run $(FUZZ_SECONDS)

lint: packages
	$(SWIFT) format lint --strict --recursive Sources Tests Package.swift
	@! git grep -nE '[[:space:]]+$$' -- '*.swift' '*.py' '*.md' '*.yaml' '*.h' '*.c' Makefile || { echo "blanks at line ends"; exit 1; }

install: build install-files

install-files:
	install -D -m 0755 -s $(BINARY) $(DESTDIR)$(PREFIX)/sbin/proxyd
	install -D -m 0644 etc/proxyd.yaml $(DESTDIR)$(SYSCONFDIR)/proxyd/proxyd.yaml.sample
	install -D -m 0644 etc/schema.sql $(DESTDIR)$(PREFIX)/share/proxyd/schema.sql
	install -D -m 0644 etc/proxyd.8 $(DESTDIR)$(PREFIX)/share/man/man8/proxyd.8
	install -D -m 0644 etc/proxyd.yaml.5 $(DESTDIR)$(PREFIX)/share/man/man5/proxyd.yaml.5
	install -d -m 0755 $(DESTDIR)$(UNITDIR)
	sed 's|@PREFIX@|$(PREFIX)|; s|@SYSCONFDIR@|$(SYSCONFDIR)|' etc/proxyd.service > $(DESTDIR)$(UNITDIR)/proxyd.service

# What building needs; packages-run and packages-test add what the demo and the tests do.
packages:
	@etc/demo/packages build

packages-run packages-test:
	@etc/demo/packages $(@:packages-%=%)

# For the test of PATH.
path:
	@echo "$$PATH"

bench: build
	Benchmarks/run

clean:
	rm -rf .build .build-all .build-thread .build-address .build-fuzz .build-gate
