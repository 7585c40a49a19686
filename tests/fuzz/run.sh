#!/usr/bin/env bash
# Runs the fuzz targets one after the other.
#
#   run.sh MINUTES [TARGET…]      minutes for each target; all targets by default
#
# libFuzzer writes new inputs to target/fuzz/corpus, and failing ones to tests/fuzz/artifacts. Add a failing input to
# tests/fuzz/corpus, where `make test` replays it.
#
# SANITIZER=address also detects memory errors, at half the speed. The default is none: the code is safe Rust, and
# the C of libjpeg-turbo and zstd is not compiled with a sanitizer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

minutes=$1
shift
fuzz=tests/fuzz
# shellcheck disable=SC2046 # names without spaces
[ $# -gt 0 ] || set -- $(sed -n 's/^name = "\([a-z]*\)"$/\1/p' $fuzz/Cargo.toml)

# Coverage needs unstable compiler flags. Without a nightly toolchain, RUSTC_BOOTSTRAP enables them in the stable one. The
# variable has another purpose, but this is sufficient for a test.
toolchain=+nightly
if ! cargo +nightly --version >/dev/null 2>&1; then
    toolchain=
    export RUSTC_BOOTSTRAP=1
fi
# The versions of the workspace.
cp Cargo.lock $fuzz/Cargo.lock

status=0
for target in "$@"; do
    found=target/fuzz/corpus/$target
    mkdir -p "$found"
    echo "fuzz: $target, $minutes minutes" >&2
    cargo $toolchain fuzz run --fuzz-dir $fuzz --target-dir target/fuzz --sanitizer "${SANITIZER:-none}" "$target" \
        "$found" "$fuzz/corpus/$target" -- -max_total_time=$((60 * minutes)) -timeout=20 -rss_limit_mb=2048 \
        -print_final_stats=1 || status=1
done
exit $status
