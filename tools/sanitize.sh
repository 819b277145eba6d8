#!/bin/sh
# The engine under a sanitizer, or in the interpreter that knows undefined behaviour:
#
#     tools/sanitize.sh thread|address|miri
#
# Needs the nightly toolchain with rust-src, and miri for the last.
set -eu
cd "$(dirname "$0")/.."
target=$(rustc -vV | sed -n 's/^host: //p')
case "${1:-}" in
thread | address)
    # The standard library is built with it too: what it does not know of looks like a race.
    RUSTFLAGS="-Zsanitizer=$1" CARGO_TARGET_DIR="target/$1-sanitizer" \
        cargo +nightly test -Zbuild-std --target "$target" -p tensafe-io --test it -- \
        plan:: file_sink:: tensor_writer:: direct::
    RUSTFLAGS="-Zsanitizer=$1" CARGO_TARGET_DIR="target/$1-sanitizer" \
        cargo +nightly test -Zbuild-std --target "$target" -p tensafe-io --lib -- write::
    ;;
miri)
    # Small properties, and the executor over memory: there are no files for the interpreter.
    export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-permissive-provenance" PROPTEST_CASES=4
    export CARGO_TARGET_DIR=target/miri
    cargo +nightly miri test -p tensafe-io --lib -- scatter:: plan:: arena:: buffer::tests::slices
    cargo +nightly miri test -p tensafe-io --test it -- plan::workers_fill
    ;;
*)
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
