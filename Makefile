# Every command a person or CI runs. `make` alone lists them.

CARGO  ?= cargo
# Debian packages that the demo and the namespace tests use.
DEBS    = iproute2 iperf3 tcpdump iputils-ping ethtool python3 python3-venv kmod procps
# Debian packages that building needs (aws-lc builds C).
TOOLS   = gcc libc6-dev make cmake
NET_TESTS = tap namespaces pf_net pfctl altq_net leak_net
# Test programs that draw what they do by chance; the libraries have such tests among the others.
FUZZ_TESTS = $(shell grep -rlE 'proptest!|Chance' --include='*.rs' */tests | sed -E 's,^[^/]*/tests/([^/.]*).*,\1,' | sort -u)
NET_ENV = SOFTNET_NET_TESTS=1 SOFTNET_BIN=$(CURDIR)/target/release/softnet
IS_ROOT = $(filter 0,$(shell id -u))

help:            ## list the verbs
	@sed -n 's/^\([a-z-]*\): .*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

build:           ## build the softnet binary (target/release/softnet)
	$(CARGO) build --release --bin softnet

check: arch      ## formatting, lints, documentation, direction of dependencies
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --workspace --no-deps --quiet

arch:            ## kern and wire know nobody; ipsec, pf, altq know only those two
	@sh .ci/arch

test:            ## all tests; as root also those in network namespaces
	$(CARGO) test --workspace
	$(if $(IS_ROOT),$(MAKE) test-net,@echo "not root: namespace tests left out (make test-net)")

legacy:          ## ipsec's own tests with 3DES and MD5, and scapy's opinion where it is asked
	$(CARGO) test -p ipsec --features legacy --lib --test scapy

captures:        ## malformed frames, those of tcpdump's own tests among them where they can be had
	@sh .ci/captures $(CURDIR)/target/captures
	SOFTNET_CAPTURES=$(CURDIR)/target/captures $(CARGO) test --workspace --test path malformed -- --nocapture

test-net: deps captures ## tests with real TAP devices, namespaces, scapy and a Linux kernel as peer (root)
	$(CARGO) build --release --bin softnet --features legacy
	$(NET_ENV) $(MAKE) legacy
	$(NET_ENV) $(CARGO) test --workspace $(addprefix --test ,$(NET_TESTS)) -- --test-threads 1
	sh router/tests/interop/run

demo: deps build ## two gateways, an ESP tunnel, real traffic through TAP (root); in memory otherwise
	@sh configs/demo.sh target/release/softnet

bench: build     ## every figure beside its ceiling
	target/release/softnet bench forward
	target/release/softnet bench esp
	target/release/softnet bench pf

loom:            ## locks, depot, interface queue and the laboratory's queues under the model checker
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom $(CARGO) test -p kern -p altq --test loom --release
	$(CARGO) test -p router --test leak_loom --release

fuzz:            ## property and fuzz tests at their long size
	SOFTNET_SOAK=1 $(CARGO) test --release --workspace --no-fail-fast --lib $(addprefix --test ,$(FUZZ_TESTS))

soak: deps build loom ## everything at its full size
	SOFTNET_SOAK=1 $(CARGO) test --release --workspace
	SOFTNET_SOAK=1 $(MAKE) $(if $(IS_ROOT),test-net,legacy)

deps:
	@sh .ci/packages $(DEBS)

.PHONY: help build check arch test legacy captures test-net demo bench loom fuzz soak deps
.DEFAULT_GOAL := help
