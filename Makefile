# Everything that is done to TwinLog. `make demo` and `make test` install the Debian packages that they miss.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

SWIFT ?= swift
# Imports of undeclared targets are errors; `make lint` also finds undeclared imports of transitive dependencies.
FLAGS := --explicit-target-dependency-import-check error
FORMATTED := Package.swift Sources Tests Perf

BUILD_PACKAGES := libpmem-dev pkg-config
TEST_PACKAGES := $(BUILD_PACKAGES) python3 qemu-utils libnbd-bin fuse3 fio e2fsprogs mount

# In three steps, so that tests that wait for a peer do not compete with those that only compute, and the tests with real
# processes have the processor to themselves.
COMPUTING := SimulationTests|CrashTests
UNIT := --skip IntegrationTests --skip '$(COMPUTING)'
INTEGRATION := --filter IntegrationTests --no-parallel
# What the sanitizers run: everything but the tests that start processes.
SANITIZED := PersistentMemoryTests|WriteLogTests|CrashTests|RecoveryTests|RemoteMemoryTCPTests|NBDTests|StorageMediumTests

.PHONY: all build release test lint format test-tsan test-asan sim crash-states mutate demo run perf clean build-packages test-packages

all: build

build-packages:
	@CSupport/install-packages $(BUILD_PACKAGES)

test-packages:
	@CSupport/install-packages $(TEST_PACKAGES)

build: build-packages
	$(SWIFT) build $(FLAGS)

release: build-packages
	$(SWIFT) build -c release $(FLAGS)

test: test-packages lint
	$(SWIFT) build --build-tests $(FLAGS)
	$(SWIFT) test --skip-build $(UNIT)
	$(SWIFT) test --skip-build --filter '$(COMPUTING)'
	$(SWIFT) test --skip-build $(INTEGRATION)

lint: test-packages
	$(SWIFT) format lint --strict --recursive $(FORMATTED)
	Tests/lint-imports

format:
	$(SWIFT) format --in-place --recursive $(FORMATTED)

# A data race makes the exit code 1 though the tests pass.
test-tsan: test-packages
	$(SWIFT) test --sanitize=thread --scratch-path .build-tsan --filter '$(SANITIZED)'

test-asan: test-packages
	ASAN_OPTIONS=detect_leaks=0 $(SWIFT) test --sanitize=address --scratch-path .build-asan \
	  -Xcc -fsanitize=undefined -Xcc -fsanitize-trap=undefined --filter '$(SANITIZED)'

# The simulator for longer: SEEDS=100000 make sim
SEEDS ?= 20000
sim: build-packages
	TWINLOG_SEEDS=$(SEEDS) $(SWIFT) test -c release -Xswiftc -enable-testing --scratch-path .build-sim --filter SimulationTests

# Crash states for longer, each scenario whole, over as many seeds as it takes: STATES=10000000 SEED=1 make crash-states
STATES ?= 1000000
SEED ?= 1
crash-states: build-packages
	TWINLOG_CRASH_STATES=$(STATES) TWINLOG_CRASH_SEED=$(SEED) $(SWIFT) test -c release -Xswiftc -enable-testing \
	  --scratch-path .build-crash --filter CrashStateTests

# Breaks one rule of the log at a time and shows which test finds it; MUTANTS='append-drain lsn-place' for some only.
MUTANTS ?=
mutate: test-packages
	Tests/Mutants/mutate $(MUTANTS)

demo: release
	.build/release/twinlog-demo

run: release
	.build/release/twinlog-demo --keep

clean:
	rm -rf .build .build-tsan .build-asan .build-sim .build-crash .build-mutate
