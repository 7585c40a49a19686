#!/usr/bin/env bash
# Finds the programs that the build needs, and installs missing ones, without root if possible.
#
#   tools.sh CACHE     links them in CACHE/tools/bin, which the Makefile adds to PATH
#
# Required: a Rust toolchain, a C compiler, Python 3.10 or newer with venv, and cmake (for libjpeg-turbo). Optional, on
# x86_64: nasm (for libjpeg-turbo's SIMD code, without which JPEG decoding is much slower).
set -euo pipefail

cache=$1
bin=$PWD/$cache/tools/bin
venv=$cache/venv/bin
python=${PYTHON:-python3}
export PATH="$PATH:$bin"
mkdir -p "$bin"

say() { printf '%s\n' "tools: $*" >&2; }
stop() {
    printf '%s\n' "error: $1" "hint:  $2" >&2
    exit 1
}
# shellcheck source=workflows/local/demo/packages.sh
. "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

# The program in nasm's package runs from any folder.
unpack_nasm() { apt_unpack nasm "$cache/tools" && ln -sf ../root/usr/bin/nasm "$bin/nasm" && has nasm; }

has cargo || stop "no Rust toolchain: cargo is not on PATH" "install Rust 1.90 or newer with rustup, then open a new shell"
has cc || has gcc || has clang ||
    stop "no C compiler" "install one: 'apt-get install build-essential' on Debian and Ubuntu, 'dnf install gcc gcc-c++' on Fedora"
has "$python" || apt_install python3 python3-venv ||
    stop "no $python" "install Python 3.10 or newer, or pass one: make PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    stop "$python is older than 3.10" "pass a newer one: make PYTHON=/path/to/python3"
"$python" -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv ||
    stop "$python cannot make virtual environments" "'apt-get install python3-venv' on Debian and Ubuntu"

if ! has cmake; then
    # PyPI's package contains the program itself. Version 3, because version 4 rejects older CMakeLists.txt files.
    apt_install cmake || {
        say "installing cmake from PyPI"
        [ -x "$venv/python" ] || "$python" -m venv "$cache/venv"
        "$venv/python" -m pip install -q --disable-pip-version-check cmake==3.31.6 && ln -sf ../../venv/bin/cmake "$bin/cmake"
    } || stop "no cmake" "install cmake, which builds libjpeg-turbo"
fi

if [ "$(uname -m)" = x86_64 ] && ! has nasm; then
    { [ ! -e "$cache/tools/no-nasm" ] && { apt_install nasm || unpack_nasm; }; } || {
        touch "$cache/tools/no-nasm" # no network access in every build
        say "WARNING: nasm is missing and cannot be installed: without it, libjpeg-turbo has no SIMD and is much slower"
        say "         to fix this, install nasm, then run 'cargo clean -p turbojpeg-sys' and 'make build'"
    }
fi
