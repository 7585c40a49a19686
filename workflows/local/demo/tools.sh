#!/usr/bin/env bash
# Finds the programs that the build needs, and gets the missing ones without root where that is possible.
#
#   tools.sh CACHE     links what it got into CACHE/tools/bin, which the Makefile puts on PATH
#
# Needed: a Rust toolchain, a C compiler, Python 3.10 or newer with venv. Wanted: cmake (for libjpeg-turbo) and, on
# x86_64, nasm (for libjpeg-turbo's SIMD code, without which JPEG decoding is much slower).
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

# nasm's package holds a program that runs wherever it lies.
unpack_nasm() { apt_unpack nasm "$cache/tools" && ln -sf ../root/usr/bin/nasm "$bin/nasm" && has nasm; }

has cargo || stop "no Rust toolchain: cargo is not on PATH" "install Rust 1.90 or newer with rustup, then open a new shell"
has cc || has gcc || has clang ||
    stop "no C compiler" "install one: 'apt-get install build-essential' on Debian and Ubuntu, 'dnf install gcc gcc-c++' on Fedora"
has "$python" || apt_install python3 python3-venv ||
    stop "no $python" "install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    stop "$python is older than 3.10" "name a newer one: make PYTHON=/path/to/python3"
"$python" -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv ||
    stop "$python cannot make virtual environments" "'apt-get install python3-venv' on Debian and Ubuntu"

if ! has cmake; then
    # PyPI's package holds the program itself. Version 3, because older CMakeLists.txt files are refused by version 4.
    apt_install cmake || {
        say "getting cmake from PyPI"
        [ -x "$venv/python" ] || "$python" -m venv "$cache/venv"
        "$venv/python" -m pip install -q --disable-pip-version-check cmake==3.31.6 && ln -sf ../../venv/bin/cmake "$bin/cmake"
    } || stop "no cmake" "install cmake, which builds libjpeg-turbo"
fi

if [ "$(uname -m)" = x86_64 ] && ! has nasm; then
    { [ ! -e "$cache/tools/no-nasm" ] && { apt_install nasm || unpack_nasm; }; } || {
        touch "$cache/tools/no-nasm" # do not ask the network again at every build
        say "WARNING: no nasm, and none to be had: libjpeg-turbo is built without SIMD and decodes JPEG much slower"
        say "         mend it: install nasm, then 'cargo clean -p turbojpeg-sys' and 'make build'"
    }
fi
