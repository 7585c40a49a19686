#!/usr/bin/env bash
# Runs the fuzz targets one after the other.
#
#   run.sh MINUTES [TARGET…]      minutes for each target; all targets by default
#
# What libFuzzer finds interesting goes to target/fuzz/corpus, what fails to tests/fuzz/artifacts. An input that once
# failed belongs into tests/fuzz/corpus, where `make test` replays it.
#
# SANITIZER=address looks for memory errors as well, at half the speed. The default is none: the code is safe Rust, and
# the C of libjpeg-turbo and zstd is not compiled with a sanitizer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

minutes=$1
shift
fuzz=tests/fuzz
[ $# -gt 0 ] || set -- $(sed -n 's/^name = "\([a-z]*\)"$/\1/p' $fuzz/Cargo.toml)

# Coverage needs a compiler's unstable flags. Where there is no nightly toolchain, RUSTC_BOOTSTRAP makes the stable one take
# them: not what that variable is for, and good enough for a test.
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
