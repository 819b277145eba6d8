#!/bin/sh
# Fuzzes one target, from the files of tests/corpus and tests/pickles as seeds:  fuzz/run.sh TARGET [SECONDS]
#
# Needs the nightly toolchain and `cargo install cargo-fuzz --version 0.13.2 --locked`.
# What it finds stays in fuzz/corpus/TARGET, what fails in fuzz/artifacts/TARGET (neither is
# committed: a failure becomes a file of tests/corpus or a test).
set -eu
target=$1
seconds=${2:-120}
cd "$(dirname "$0")/.."
found=fuzz/corpus/$target
mkdir -p "$found"
case $target in
    header_*) seeds="-dict=fuzz/header.dict tests/corpus/accept tests/corpus/lenient tests/corpus/reject" ;;
    pickle_* | convert_*) seeds="tests/pickles/hostile $(echo tests/pickles/benign/*)" ;;
    zip_*) seeds="tests/pickles/hostile tests/pickles/benign/torch-2.15.0 tests/pickles/benign/python-3.12" ;;
    *) seeds="" ;; # The input is not a file: libFuzzer builds it up from nothing.
esac
# shellcheck disable=SC2086 # $seeds is a list of arguments
exec cargo +nightly fuzz run "$target" "$found" -- $seeds \
    -max_total_time="$seconds" -max_len=8192 -rss_limit_mb=3072 -timeout=30
