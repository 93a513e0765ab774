# Everything that is done to TwinLog. `make demo` and `make test` install the Debian packages that they miss.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

SWIFT ?= swift
# Imports of undeclared targets are errors; `make lint` also finds undeclared imports of transitive dependencies.
FLAGS := --explicit-target-dependency-import-check error
FORMATTED := Package.swift Sources Tests Perf

BUILD_PACKAGES := libpmem-dev pkg-config
TEST_PACKAGES := $(BUILD_PACKAGES) python3 qemu-utils libnbd-bin python3-libnbd nbd-client fuse3 fio e2fsprogs mount strace procps \
  iproute2 hostname python3-seccomp

# In four steps, so that tests that wait for a peer do not compete with those that only compute, and the tests of whole nodes, in one
# process or in several, have the processor to themselves.
COMPUTING := SimulationTests|CrashTests|RecoveryTests|FuzzTests
NODES := StorageNodeTests|TwinLogTests
UNIT := --skip IntegrationTests --skip '$(COMPUTING)' --skip '$(NODES)'
INTEGRATION := --filter IntegrationTests --no-parallel
# What the sanitizers run, in two steps for the same reason.
SANITIZED := PersistentMemoryTests|WriteLogTests|RemoteMemoryTCPTests|NBDTests|StorageMediumTests
SANITIZED_COMPUTING := CrashTests|RecoveryTests

.PHONY: all build release test test-previous lint format test-tsan test-asan test-core arm64 test-pmem model sim engine-sim crash-states mutate holes fuzz demo demo-as-user test-as-user test-in-container run man perf instructions clean build-packages test-packages

all: build

build-packages:
	@CSupport/install-packages $(BUILD_PACKAGES)

test-packages:
	@CSupport/install-packages $(TEST_PACKAGES)

build: build-packages
	$(SWIFT) build $(FLAGS)

release: build-packages
	$(SWIFT) build -c release $(FLAGS)

test: test-packages lint test-core
	$(SWIFT) build --build-tests $(FLAGS)
	$(SWIFT) test --skip-build $(UNIT)
	$(SWIFT) test --skip-build --filter '$(NODES)'
	$(SWIFT) test --skip-build --filter '$(COMPUTING)'
	$(SWIFT) test --skip-build $(INTEGRATION)

# Beside the previous release's programs, built out of the repository's history: a rolling upgrade and the way back.
test-previous: test-packages
	$(SWIFT) build --build-tests $(FLAGS)
	TWINLOG_PREVIOUS="$$(Tests/PreviousRelease/build)" $(SWIFT) test --skip-build --no-parallel --filter PreviousReleaseTests

lint: test-packages
	$(SWIFT) format lint --strict --recursive $(FORMATTED)
	Tests/lint-imports
	Tests/lint-rules

format:
	$(SWIFT) format --in-place --recursive $(FORMATTED)

# SIGBUS is the tests' own. A data race makes the exit code 1 though the tests pass.
test-tsan: export TSAN_OPTIONS = handle_sigbus=0 suppressions=$(CURDIR)/Tests/tsan-suppressions
test-tsan: test-packages
	@CSupport/install-packages gcc libc6-dev
	Tests/CCore/run tsan
	for tests in '$(SANITIZED)' '$(SANITIZED_COMPUTING)'; do \
	  $(SWIFT) test --sanitize=thread --scratch-path .build-tsan --filter "$$tests"; \
	done

test-asan: export ASAN_OPTIONS = detect_leaks=0:handle_sigbus=0
test-asan: test-packages
	for tests in '$(SANITIZED)' '$(SANITIZED_COMPUTING)'; do \
	  $(SWIFT) test --sanitize=address --scratch-path .build-asan \
	    -Xcc -fsanitize=undefined -Xcc -fsanitize-trap=undefined --filter "$$tests"; \
	done

# The pool and log tests in a guest with persistent memory (emulated NVDIMM, ext4 with DAX, MAP_SYNC).
test-pmem: test-packages
	$(SWIFT) build --build-tests $(FLAGS)
	Tests/Pmem/run "$$($(SWIFT) build --show-bin-path)/TwinLogPackageTests.xctest"

# The C core alone, without Swift and libpmem: here, and cross-compiled for arm64 under an emulator.
test-core:
	@CSupport/install-packages gcc libc6-dev
	Tests/CCore/run native

arm64:
	@CSupport/install-packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
	Tests/CCore/run arm64

# The log's protocol, every interleaving of a bounded model, and mutants of it. FULL=1 make model: larger, for minutes
model:
	@CSupport/install-packages spin gcc libc6-dev
	Tests/Model/run-model

# The simulator of the machines, and that of the whole engine, for longer: SEEDS=100000 make sim
SEEDS ?= 20000
sim: build-packages
	TWINLOG_SEEDS=$(SEEDS) $(SWIFT) test -c release -Xswiftc -enable-testing --scratch-path .build-sim --filter '^SimulationTests'

engine-sim: build-packages
	TWINLOG_SEEDS=$(SEEDS) $(SWIFT) test -c release -Xswiftc -enable-testing --scratch-path .build-sim --filter '^EngineSimulationTests'

# Fuzzes every parser for FUZZ_SECONDS each: FUZZ_SECONDS=600 FUZZ_TARGETS="pool scan" make fuzz. The corpus in the tree is read
# only; new inputs go to .build-fuzz/corpus, and one that crashes or takes 10 s is left in .build-fuzz/found.
FUZZ_SECONDS ?= 20
FUZZ_TARGETS ?= pool scan heal part nbd frame peer admin configuration
FUZZER := .build-fuzz/release/twinlog-fuzz
# Of several -sanitize the Swift compiler obeys the last, and the package manager gives them in any order: hence both in one.
fuzz: build-packages
	TWINLOG_FUZZ=1 $(SWIFT) build -c release --scratch-path .build-fuzz --product twinlog-fuzz \
	  --sanitize=fuzzer --sanitize=address -Xswiftc -sanitize=fuzzer,address \
	  -Xswiftc -parse-as-library -Xswiftc -enable-testing
	for target in $(FUZZ_TARGETS); do \
	  echo "== $$target"; \
	  mkdir -p .build-fuzz/corpus/$$target .build-fuzz/found; \
	  TWINLOG_FUZZ_TARGET=$$target SWIFT_BACKTRACE=enable=no ASAN_OPTIONS=detect_leaks=0 $(FUZZER) \
	    -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -max_len=4096 -print_final_stats=1 \
	    -artifact_prefix=.build-fuzz/found/$$target- .build-fuzz/corpus/$$target Tests/Fuzz/corpus/$$target; \
	done

# Each scenario beside its floors and peers; JSON and the printed tables go to Perf/results/.
PERF := .build/release/twinlog-perf
perf: release
	@CSupport/install-packages libpmemlog1
	mkdir -p Perf/results
	for scenario in append recover; do \
	  $(PERF) compare $$scenario --seconds 3 --repeats 9 --json Perf/results/$$scenario.json \
	    --html Perf/results/$$scenario.html | tee Perf/results/$$scenario.txt; \
	done
	for depth in 1 32; do \
	  $(PERF) mirror --size 4KiB,64KiB --depth $$depth --seconds 3 --json Perf/results/mirror-$$depth.json \
	    | tee Perf/results/mirror-$$depth.txt; \
	done
	$(PERF) takeover --seconds 9 --repeats 9 --depth 16 --json Perf/results/takeover.json | tee Perf/results/takeover.txt
	$(PERF) floor --json Perf/results/floor.json | tee Perf/results/floor.txt

# Instructions and system calls of one append: no other load on the machine changes them.
instructions: release
	@CSupport/install-packages valgrind strace binutils
	Perf/instructions

# Crash states for longer, each scenario whole, over as many seeds as it takes: STATES=10000000 SEED=1 make crash-states
STATES ?= 1000000
SEED ?= 1
crash-states: build-packages
	TWINLOG_CRASH_STATES=$(STATES) TWINLOG_CRASH_SEED=$(SEED) $(SWIFT) test -c release -Xswiftc -enable-testing \
	  --scratch-path .build-crash --filter CrashTests

# Breaks one rule of the log at a time and shows which test finds it; MUTANTS='append-drain lsn-place' for some only.
MUTANTS ?=
mutate: test-packages
	Tests/Mutants/mutate $(MUTANTS)

# Undoes the mending of one known hole at a time and shows the first seed at which the simulator alone finds it.
holes: test-packages
	Tests/Mutants/mutate --holes $(MUTANTS)

demo: release
	.build/release/twinlog-demo

# People are not root: the demo as a number that is nobody's, and the tests as the user without rights, who may mount with FUSE. Left
# out: what the nodes agree on among themselves, whoever runs them.
TESTS := TwinLogPackageTests.xctest --testing-library swift-testing --no-parallel
demo-as-user: test-packages
	$(SWIFT) build $(FLAGS)
	Tests/as-user 61234 "$$($(SWIFT) build --show-bin-path)" twinlog-demo --seconds 3

test-as-user: test-packages
	$(SWIFT) build --build-tests $(FLAGS)
	Tests/as-user 65534 "$$($(SWIFT) build --show-bin-path)" $(TESTS) --filter IntegrationTests \
	  --skip 'DoubtTests|KnownCopyTests|PromiseTests'

# As a container engine runs them: the demo, and the tests of what a process does to the machine that it finds.
test-in-container: test-packages
	$(SWIFT) build --build-tests $(FLAGS)
	Tests/in-container "$$($(SWIFT) build --show-bin-path)" twinlog-demo --seconds 3
	Tests/in-container "$$($(SWIFT) build --show-bin-path)" $(TESTS) --filter 'IntegrationTests\.Cluster/$(CONTAINED)'
CONTAINED := (ProcessTests|OperationTests|HistoryTests|RecoverToolTests|SupervisorTests|SurroundingsTests|ClientToolTests|ForeignClientTests)

run: release
	.build/release/twinlog-demo --keep

# Manual pages and shell completions, in .build/share as in /usr/share: CONFIGURATION=release make man
CONFIGURATION ?= debug
MANUAL := .build/manual
man: build-packages
	$(SWIFT) build -c $(CONFIGURATION) $(FLAGS)
	$(SWIFT) build --package-path .build/checkouts/swift-argument-parser --scratch-path $(MANUAL) --product generate-manual
	packaging/make-share "$$($(SWIFT) build -c $(CONFIGURATION) --show-bin-path)" $(MANUAL)/debug/generate-manual .build/share

clean:
	rm -rf .build .build-previous .build-tsan .build-asan .build-sim .build-model .build-ccore .build-pmem .build-fuzz .build-crash .build-mutate
