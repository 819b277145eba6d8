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
# Seeds are copied: libFuzzer writes to the first directory that it is given.
seed() {
    find "$@" -type f -size -8k | while IFS= read -r file; do
        cp -- "$file" "$found/seed-$(printf %s "$file" | tr / -)"
    done
}
dictionary=""
case $target in
    header_*)
        seed tests/corpus/accept tests/corpus/lenient tests/corpus/reject
        dictionary="-dict=fuzz/header.dict"
        ;;
    pickle_* | convert_*) seed tests/pickles/hostile tests/pickles/benign ;;
    zip_* | container_*) seed tests/pickles/hostile tests/pickles/benign/torch-2.15.0 tests/pickles/benign/python-3.12 ;;
    *) ;; # The input is not a file: libFuzzer builds it up from nothing.
esac
# shellcheck disable=SC2086 # the dictionary is an argument or none
exec cargo +nightly fuzz run "$target" "$found" -- $dictionary \
    -max_total_time="$seconds" -max_len=8192 -rss_limit_mb=3072 -timeout=30
