#!/usr/bin/env bash
# Builds the cluster, starts it, runs the cases of cluster.py, and ends it again, whatever happened. Needs root.
#
#   run.sh [CASE…]
#
# KEEP=1 leaves the cluster up: down.sh ends it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
[ "$(id -u)" = 0 ] || stop "a cluster needs root" "sudo make test-cluster, on a machine that may be changed"
"$here/build.sh"
[ -n "${KEEP:-}" ] || trap '"$here/down.sh"' EXIT
"$here/down.sh"
"$here/images.sh" "${PROGRAMS:-$repository/target/release}"
"$here/up.sh"
"$here/argo.sh"
python3 -B "$here/cluster.py" "$@"
