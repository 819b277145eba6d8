# Everything that is done with this tree, by name. `make demo` and `make test` install what they need.
.DEFAULT_GOAL := help
.PHONY: help demo test test-integrations check spec bench bench-quick bench-pickles fuzz tsan docs lint fmt clean

help:                 ## this list
	@sed -n 's/^\([a-z-]*\): *## */\1\t/p' $(MAKEFILE_LIST) | expand -t 20

demo:                 ## a real model: inspect, load, save, verify
	@python3 tools/env.py --wheel main
	@.venv/main/bin/python tools/demo.py

test:                 ## everything that is tested: half an hour and 25 GB of disk the first time
	@python3 tools/test.py

test-integrations:    ## torch.distributed, vLLM, DeepSpeed, Ray and the Hub's libraries: part of `test`
	@python3 tools/test.py --integrations

check:                 ## what needs no Python environment: format, lints, edges, spec, Rust tests
	@python3 tools/test.py format edges spec corpus pickles-hostile pickles-benign clippy rust rustdoc

spec:                 ## rules of docs/spec.md that no test cites
	@python3 tools/spec.py

bench:                ## load, cut and save beside everyone who runs on a CPU: most of an hour, 20 GB
	@python3 tools/env.py --tools bench bench-rc
	@python3 tools/env.py --wheel main
	@python3 bench/load.py

bench-quick:          ## the same with small files: shows that it works
	@python3 tools/env.py --tools bench bench-rc
	@python3 tools/env.py --wheel main
	@python3 bench/load.py --quick

bench-pickles:        ## convert and scan beside what people use
	@python3 tools/env.py --wheel main
	@.venv/main/bin/python bench/pickles.py

fuzz:                 ## each fuzz target for SECONDS (default 120); needs nightly and cargo-fuzz
	@for target in header_roundtrip header_vs_reference plan_covers_ranges pickle_never_panics \
		zip_strict_vs_python container_never_panics convert_roundtrip; do \
		fuzz/run.sh $$target $(or $(SECONDS),120) || exit 1; done

docs:                 ## the Rust documentation
	@cargo doc --workspace --no-deps

fmt:                 ## format Rust and Python
	@cargo fmt
	@.venv/main/bin/python -m ruff format .

tsan:                 ## the executor and the writer under ThreadSanitizer; needs nightly and rust-src (also: tools/sanitize.sh address|miri)
	@tools/sanitize.sh thread

clean:                 ## remove what was built; .venv stays
	@cargo clean
	@rm -rf .cache dist
