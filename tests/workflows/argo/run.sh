#!/usr/bin/env bash
# Gets what the tests of workflows/argo and workflows/kubernetes need, and runs them.
#
#   run.sh CACHE [TEST…]     CACHE/argo keeps what was fetched and built; TEST: test_run.Run.test_steps_alone, …
#   run.sh CACHE --tools     fetches and builds, and runs no test
#
# Argo's linter is built from the Go module, once, in some minutes. Without Go its tests are skipped, with a message.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

here=tests/workflows/argo
cache=$PWD/${1#"$PWD"/} && shift
argo=$cache/argo
mkdir -p "$argo"

say() { printf '%s\n' "argo: $*" >&2; }
skipped() { printf '%s\n' "SKIPPED: $*" >&2; }
# fresh FILE VERSION: whether FILE is there, made of this version.
fresh() { [ -x "$1" ] && [ "$(cat "$argo/$(basename "$1").version" 2>/dev/null)" = "$2" ]; }

get_python() {
    local version
    version=$(sha256sum <$here/requirements.txt)
    fresh "$argo/venv" "$version" && return
    say "getting hera and jsonschema from PyPI"
    "${PYTHON:-python3}" -m venv "$argo/venv"
    "$argo/venv/bin/python" -m pip install -q --disable-pip-version-check --only-binary=:all: --no-deps -r $here/requirements.txt
    echo "$version" >"$argo/venv.version"
}

get_linter() {
    local version work=$argo/go
    version=$(cat $here/lint/go.mod $here/lint/go.sum $here/lint/main.go | sha256sum)
    fresh "$argo/argo-lint" "$version" && return
    rm -f "$argo/argo-lint"
    if ! command -v go >/dev/null; then
        skipped "Argo's own linter (no Go to build it with)"
        return
    fi
    say "building Argo's linter, for some minutes"
    # It lints a few files, so a fast build matters more than a fast program. The build's caches take gigabytes and are deleted.
    if (cd $here/lint && GOPATH=$work GOCACHE=$work/cache GOTOOLCHAIN=local GOFLAGS="-modcacherw -trimpath" CGO_ENABLED=0 \
        go build -gcflags='all=-N -l' -ldflags=-s -o "$argo/argo-lint" .) >"$argo/go.log" 2>&1; then
        echo "$version" >"$argo/argo-lint.version"
    else
        tail -n 3 "$argo/go.log" >&2
        skipped "Argo's own linter (it does not build, see above; Go 1.26 or newer and a module proxy are needed)"
    fi
    rm -rf "$work"
}

get_python
get_linter
[ "${1:-}" != --tools ] || exit 0
command -v kubectl >/dev/null || skipped "the Kustomizations (no kubectl)"
if [ ! -x "$cache/servers/bin/weed" ]; then
    skipped "the DAG at work (no SeaweedFS: make servers)"
    [ -z "${CI:-}" ] || exit 1 # CI must have it
fi
cd $here
"$argo/venv/bin/python" -B -m unittest "${@:-discover}"
