# make run      two demo Dovecot backends and proxyd on loopback ports, until Ctrl-C
# make test     everything CI runs
# make build    the release binary, .build/release/proxyd; TRAITS=PostgreSQL,LDAP for sources that need a library more
# make install  DESTDIR= and PREFIX= as usual
# make lint     style, and warnings as errors
#
# Shorter loops: make unit, make integration, make naps, make fuzz, make sanitize. FUZZ_SECONDS=600 make fuzz for a long run.

SHELL := /bin/bash
SWIFT ?= swift
PYTHON ?= python3
PREFIX ?= /usr/local
DESTDIR ?=
SYSCONFDIR ?= /etc
UNITDIR ?= /lib/systemd/system
FUZZ_SECONDS ?= 20
BINARY := .build/release/proxyd
# Traits to build with: make build TRAITS=PostgreSQL,LDAP (see docs/Sources.md).
TRAITS ?=

.PHONY: all build build-all run test unit integration naps sanitize fuzz lint install install-files packages bench clean
.NOTPARALLEL:

all: build

# The Swift runtime is linked in: 4 MB resident instead of 15, and nothing to install beside the binary.
build: packages
	$(SWIFT) build -c release --static-swift-stdlib --product proxyd $(if $(TRAITS),--traits $(TRAITS))

# The same with every source there is, for the tests of those.
build-all: packages
	$(SWIFT) build -c release --static-swift-stdlib --product proxyd --enable-all-traits --scratch-path .build-all

run: build
	$(PYTHON) etc/demo/run.py

test: packages lint unit build build-all integration fuzz sanitize
	@echo "make test: all passed"

unit: packages
	SWIFT_BACKTRACE=enable=no $(SWIFT) test

integration: build build-all
	cd Tests/Integration && $(PYTHON) -W error::ResourceWarning -m unittest -v

# The tests of TESTS, or all, with a proxyd that naps around its system calls: finds those that look too soon. Takes long.
naps: export NAPS := $(CURDIR)/.build/naps.so
naps: export NAP_LOG ?= 200
naps: export NAP_SEND ?= 3
naps: export NAP_CLOSE ?= 5
naps: build build-all
	cc -O1 -Wall -Werror -shared -fPIC -o $(NAPS) Tests/Integration/naps.c
	cd Tests/Integration && $(PYTHON) -W error::ResourceWarning -m unittest -v $(TESTS)

# Each with a build folder of its own: the libraries are instrumented too. PROXYD_TSAN: locks the sanitizer can see. The
# inspections of the sources (HouseTests) run nothing of ours, and take minutes of it.
sanitize: packages
	SWIFT_BACKTRACE=enable=no TSAN_OPTIONS="halt_on_error=1" \
	  $(SWIFT) test --enable-all-traits --sanitize=thread --skip HouseTests --scratch-path .build-thread -Xswiftc -DPROXYD_TSAN
	SWIFT_BACKTRACE=enable=no ASAN_OPTIONS="detect_leaks=0" \
	  $(SWIFT) test --enable-all-traits --sanitize=address --skip HouseTests --scratch-path .build-address

fuzz: packages
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

packages:
	@etc/demo/packages

bench: build
	Benchmarks/run

clean:
	rm -rf .build .build-all .build-thread .build-address .build-fuzz
