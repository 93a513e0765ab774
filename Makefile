# Everything that is done to TwinLog. `make demo` and `make test` install the Debian packages that they miss.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

SWIFT ?= swift
# Imports of undeclared targets are errors; `make lint` also finds undeclared imports of transitive dependencies.
FLAGS := --explicit-target-dependency-import-check error
FORMATTED := Package.swift Sources Tests Perf

BUILD_PACKAGES := libpmem-dev libiscsi-dev pkg-config
TEST_PACKAGES := $(BUILD_PACKAGES) python3 qemu-utils libnbd-bin python3-libnbd nbd-client etcd-server etcd-client fuse3 fio e2fsprogs mount strace procps \
  iproute2 nftables hostname python3-seccomp openssl tgt

# Tests run what people run, optimized, in a folder of their own: what is built for debugging, and what `make release` builds, stays as it is.
TESTED := -c release --scratch-path .build-test -Xswiftc -enable-testing
BUILD_TESTS = $(SWIFT) build --build-tests $(TESTED) $(FLAGS)
TESTED_BIN := $(CURDIR)/.build-test/release
BUNDLE := TwinLogPackageTests.xctest --testing-library swift-testing
# In steps, so that tests that wait for a peer do not compete with those that only compute. Tests of whole clusters wait most of their
# time: two run side by side, of the slowest suites and of the others; what only computes takes what they leave of the processor, and yields.
COMPUTING := SimulationTests|CrashTests|RecoveryTests|FuzzTests
NODES := StorageNodeTests|TwinLogTests
UNIT := --skip IntegrationTests --skip '$(COMPUTING)' --skip '$(NODES)'
SLOWEST := NemesisTests|HostTests|EtcdTests|AnswerTests
# What the sanitizers run, in two steps for the same reason.
SANITIZED := PersistentMemoryTests|WriteLogTests|RemoteMemoryTCPTests|NBDTests|StorageMediumTests
SANITIZED_COMPUTING := CrashTests|RecoveryTests

.PHONY: help all check build release test test-clusters test-slowest test-computing nemesis test-previous lint format test-tsan test-asan test-core arm64 test-pmem model sim crash-states mutate holes fuzz demo demo-as-user test-as-user test-in-container run man perf instructions clean build-packages test-packages

all: build

help: ## What there is to make
	@sed -nE 's/^([a-z][a-z -]*):.*## (.*)/\1\t\2/p' Makefile | sort | awk -F'\t' '{ printf "%-18s %s\n", $$1, $$2 }'

build-packages:
	@CSupport/install-packages $(BUILD_PACKAGES)

test-packages:
	@CSupport/install-packages $(TEST_PACKAGES)

build: build-packages ## Everything, for debugging
	$(SWIFT) build $(FLAGS)

release: build-packages ## What people run, into .build/release
	$(SWIFT) build -c release $(FLAGS)

test: test-packages lint test-core ## Lint and every test; TEST=Suite make check runs some
	$(BUILD_TESTS)
	$(TESTED_BIN)/$(BUNDLE) $(UNIT)
	$(TESTED_BIN)/$(BUNDLE) --filter '$(NODES)'
	$(MAKE) --jobs 3 test-computing test-slowest test-clusters

# Steps of `make test`, of what is built, side by side: each line says which of them has printed it.
NAMED = 2>&1 | sed -u 's/^/$@: /'
test-clusters:
	$(TESTED_BIN)/$(BUNDLE) --no-parallel --filter IntegrationTests --skip '$(SLOWEST)' $(NAMED)

test-slowest:
	$(TESTED_BIN)/$(BUNDLE) --no-parallel --filter 'IntegrationTests.*($(SLOWEST))' $(NAMED)

test-computing:
	TWINLOG_SEEDS=2000 nice -n 19 $(TESTED_BIN)/$(BUNDLE) --filter '$(COMPUTING)' $(NAMED)

check: test-packages ## One suite or test: TEST=OwnerTests
	$(SWIFT) build --build-tests $(FLAGS)
	$(SWIFT) test --skip-build --no-parallel --filter '$(or $(TEST),$(error TEST=which suite or test?))' 2>&1 | tee /dev/stderr \
	  | grep 'Test run with [1-9]' >/dev/null || { echo "check: a test failed, or none is called $(TEST)" >&2; exit 1; }

# Faults of hosts at random, from a seed, with clients that check all that they read, until so many minutes or faults have passed:
# MINUTES=10 SEED=1 make nemesis, FAULTS=1000 MINUTES=90 make nemesis
MINUTES ?= 10
FAULTS ?= 1000000
nemesis: test-packages ## Random faults of hosts and their network: MINUTES=10 SEED=1
	$(BUILD_TESTS)
	TWINLOG_SEED=$(SEED) TWINLOG_NEMESIS_FAULTS=$(FAULTS) TWINLOG_NEMESIS_SECONDS=$$(($(MINUTES) * 60)) \
	  $(TESTED_BIN)/$(BUNDLE) --no-parallel --filter NemesisTests

# Beside the previous release's programs, built out of the repository's history: a rolling upgrade and the way back.
test-previous: test-packages ## This release beside the previous one
	$(BUILD_TESTS)
	TWINLOG_PREVIOUS="$$(Tests/Verification/previous-release/build)" $(TESTED_BIN)/$(BUNDLE) --no-parallel --filter PreviousReleaseTests

lint: test-packages ## Format, imports, circles of files, rule numbers, names of files, public surface, the README's figures
	$(SWIFT) format lint --strict --recursive $(FORMATTED)
	Tests/Verification/lint/imports
	Tests/Verification/lint/circles
	Tests/Verification/lint/rules
	Tests/Verification/lint/pages
	Tests/Verification/lint/surface
	Perf/fill-readme --check

format: ## Formats the sources
	$(SWIFT) format --in-place --recursive $(FORMATTED)

# SIGBUS is the tests' own. A data race makes the exit code 1 though the tests pass.
test-tsan: export TSAN_OPTIONS = handle_sigbus=0 suppressions=$(CURDIR)/Tests/Verification/tsan-suppressions
test-tsan: test-packages ## The tests under the thread sanitizer
	@CSupport/install-packages gcc libc6-dev
	Tests/Verification/c-core/run tsan
	for tests in '$(SANITIZED)' '$(SANITIZED_COMPUTING)'; do \
	  $(SWIFT) test --sanitize=thread --scratch-path .build-tsan --filter "$$tests"; \
	done

test-asan: export ASAN_OPTIONS = detect_leaks=0:handle_sigbus=0
test-asan: test-packages ## The tests under the address sanitizer
	for tests in '$(SANITIZED)' '$(SANITIZED_COMPUTING)'; do \
	  $(SWIFT) test --sanitize=address --scratch-path .build-asan \
	    -Xcc -fsanitize=undefined -Xcc -fsanitize-trap=undefined --filter "$$tests"; \
	done

# The pool and log tests in a guest with persistent memory (emulated NVDIMM, ext4 with DAX, MAP_SYNC).
test-pmem: test-packages ## Pools and logs in a guest with persistent memory
	$(BUILD_TESTS)
	Tests/Verification/pmem-guest/run $(TESTED_BIN)/TwinLogPackageTests.xctest

# The C core alone, without Swift and libpmem: here, and cross-compiled for arm64 under an emulator.
test-core: ## The C core alone
	@CSupport/install-packages gcc libc6-dev
	Tests/Verification/c-core/run native

arm64: ## The C core on arm64, emulated
	@CSupport/install-packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
	Tests/Verification/c-core/run arm64

# The log's protocol, every interleaving of a bounded model, and mutants of it. FULL=1 make model: larger, for minutes
model: ## The log's protocol, every interleaving (spin); FULL=1 for more
	@CSupport/install-packages spin gcc libc6-dev
	Tests/Verification/model/run-model

# The engine on two nodes in virtual time, for longer: SEEDS=100000 make sim
SEEDS ?= 20000
sim: build-packages ## The production engine in virtual time: SEEDS=20000
	$(BUILD_TESTS)
	TWINLOG_SEEDS=$(SEEDS) $(TESTED_BIN)/$(BUNDLE) --filter '^SimulationTests'

# Fuzzes every parser for FUZZ_SECONDS each: FUZZ_SECONDS=600 FUZZ_TARGETS="pool scan" make fuzz. The corpus in the tree is read
# only; new inputs go to .build-fuzz/corpus, and one that crashes or takes 10 s is left in .build-fuzz/found.
FUZZ_SECONDS ?= 20
FUZZ_TARGETS ?= pool scan heal part nbd frame peer admin configuration
FUZZER := .build-fuzz/release/twinlog-fuzz
# Of several -sanitize the Swift compiler obeys the last, and the package manager gives them in any order: hence both in one.
fuzz: build-packages ## Every parser: FUZZ_SECONDS=20 each
	TWINLOG_FUZZ=1 $(SWIFT) build -c release --scratch-path .build-fuzz --product twinlog-fuzz \
	  --sanitize=fuzzer --sanitize=address -Xswiftc -sanitize=fuzzer,address \
	  -Xswiftc -parse-as-library -Xswiftc -enable-testing
	for target in $(FUZZ_TARGETS); do \
	  echo "== $$target"; \
	  mkdir -p .build-fuzz/corpus/$$target .build-fuzz/found; \
	  TWINLOG_FUZZ_TARGET=$$target SWIFT_BACKTRACE=enable=no ASAN_OPTIONS=detect_leaks=0 $(FUZZER) \
	    -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -max_len=4096 -print_final_stats=1 \
	    -artifact_prefix=.build-fuzz/found/$$target- .build-fuzz/corpus/$$target Tests/Verification/fuzz/corpus/$$target; \
	done

# Each scenario beside its floors and peers: JSON and pages into Perf/results, and from them the table in the README. Some 20 minutes of a
# machine that does nothing else; OPTIONS=--quick make perf shows in one minute that it works, and what it writes fills no table.
OPTIONS ?= --seconds 9 --repeats 9
perf: release ## Every scenario beside its floors, into Perf/results and the README's table
	@CSupport/install-packages libpmemlog1 nbdkit qemu-utils python3
	Perf/measure .build/release/twinlog-perf $(OPTIONS)
	Perf/fill-readme

# Instructions, allocations and system calls of one append, and of one mirrored write through the engine: no other load changes them.
instructions: release ## What an append and a mirrored write cost in instructions
	@CSupport/install-packages valgrind strace binutils
	Perf/instructions

# Crash states for longer, each scenario whole, over as many seeds as it takes: STATES=10000000 SEED=1 make crash-states
STATES ?= 1000000
SEED ?= 1
crash-states: build-packages ## More states after a crash: STATES=1000000
	$(BUILD_TESTS)
	TWINLOG_CRASH_STATES=$(STATES) TWINLOG_CRASH_SEED=$(SEED) $(TESTED_BIN)/$(BUNDLE) --filter CrashTests

# Breaks one rule of the log at a time and shows which test finds it; MUTANTS='append-drain lsn-place' for some only.
MUTANTS ?=
mutate: test-packages ## Breaks one rule at a time: MUTANTS='a b' for some, JOBS=2
	Tests/Verification/mutants/mutate --jobs $(or $(JOBS),1) $(MUTANTS)

# Undoes the mending of one known hole at a time and shows the first seed at which the simulator alone finds it.
holes: test-packages ## Brings back known faults for the simulator to find
	Tests/Verification/mutants/mutate --holes $(MUTANTS)

demo: release ## A cluster that loses a server under load
	.build/release/twinlog-demo

# People are not root: the demo as a number that is nobody's, and the tests as the user without rights, who may mount with FUSE. Left
# out: what the nodes agree on among themselves, whoever runs them.
TESTS := $(BUNDLE) --no-parallel
demo-as-user: test-packages ## The demo as an ordinary user
	$(BUILD_TESTS)
	Tests/Verification/surroundings/as-user 61234 $(TESTED_BIN) twinlog-demo --seconds 3

test-as-user: test-packages ## Whole clusters as a user without rights
	$(BUILD_TESTS)
	Tests/Verification/surroundings/as-user 65534 $(TESTED_BIN) $(TESTS) --filter IntegrationTests \
	  --skip 'DoubtTests|KnownCopyTests|PromiseTests|ScrubTests|AnswerTests|EtcdTests|HostTests|NemesisTests'

# As a container engine runs them: the demo, and the tests of what a process does to the machine that it finds.
test-in-container: test-packages ## Whole clusters as in a container
	$(BUILD_TESTS)
	Tests/Verification/surroundings/in-container $(TESTED_BIN) twinlog-demo --seconds 3
	Tests/Verification/surroundings/in-container $(TESTED_BIN) $(TESTS) --filter 'IntegrationTests\.Cluster/$(CONTAINED)'
CONTAINED := (ProcessTests|OperationTests|HistoryTests|RecoverToolTests|SupervisorTests|SurroundingsTests|ClientToolTests|ForeignClientTests)

run: release ## The demo's cluster, kept running
	.build/release/twinlog-demo --keep

# Manual pages and shell completions, in .build/share as in /usr/share, as PROGRAMS tell them.
PROGRAMS ?= .build/release
MANUAL := .build/manual
man: build-packages ## Manual pages and completions, into .build/share
	$(if $(findstring .build-test,$(PROGRAMS)),$(BUILD_TESTS),$(SWIFT) build -c release $(FLAGS))
	$(SWIFT) build --package-path $(dir $(PROGRAMS))checkouts/swift-argument-parser --scratch-path $(MANUAL) --product generate-manual
	packaging/make-share $(PROGRAMS) $(MANUAL)/debug/generate-manual .build/share

clean: ## Removes what was built
	rm -rf .build .build-previous .build-tsan .build-asan .build-test .build-model .build-ccore .build-pmem .build-fuzz .build-mutate
