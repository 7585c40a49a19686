#!/usr/bin/env bash
# Builds what the cluster is made of, from Go modules, once: the control plane (13 minutes on two cores), Argo's controller
# and executor (5 minutes), and the pause container. What is there is not built again.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
command -v go >/dev/null || stop "no go" "install Go 1.25 or newer"
mkdir -p "$CLUSTER/bin" "$CLUSTER/src"
export GOMODCACHE=${CLUSTER_GO:-$CLUSTER}/gomod GOCACHE=${CLUSTER_GO:-$CLUSTER}/gocache GOFLAGS=-mod=mod CGO_ENABLED=0
module() { go mod download -json "$1" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p'; }

if [ ! -x "$CLUSTER/bin/hyper-$KUBERNETES" ]; then
    say "building Kubernetes $KUBERNETES"
    rm -rf "$CLUSTER/src/control" && cp -r "$here/control" "$CLUSTER/src/control"
    cd "$CLUSTER/src/control"
    python3 gomod.py "$KUBERNETES" <"$(module "k8s.io/kubernetes@v$KUBERNETES")/go.mod" >go.mod
    flags="-s -w -X k8s.io/component-base/version.gitVersion=v$KUBERNETES -X k8s.io/component-base/version.gitMajor=1"
    go build -p "${JOBS:-2}" -ldflags "$flags -X k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<<"$KUBERNETES")" \
        -o "$CLUSTER/bin/hyper-$KUBERNETES" .
fi
ln -sfn "hyper-$KUBERNETES" "$CLUSTER/bin/hyper"

# argo.sh takes the manifests from here, too.
source=$CLUSTER/src/argo-$ARGO
if [ ! -d "$source/manifests" ]; then
    rm -rf "$source" && cp -r "$(module "github.com/argoproj/argo-workflows/v4@v$ARGO")" "$source" && chmod -R u+w "$source"
    # A link in the repository, so that the module's zip lacks it: to the file for Darwin.
    folder=$source/workflow/executor/osspecific
    [ -e "$folder/signal_linux.go" ] || cp "$folder/signal_darwin.go" "$folder/signal_linux.go"
fi
for program in workflow-controller argoexec; do
    if [ ! -x "$CLUSTER/bin/$program-$ARGO" ]; then
        say "building Argo Workflows $ARGO: $program"
        version=github.com/argoproj/argo-workflows/v4
        (cd "$source" && go build -p "${JOBS:-2}" -o "$CLUSTER/bin/$program-$ARGO" \
            -ldflags "-s -w -X $version.version=v$ARGO -X $version.gitTag=v$ARGO -X $version.gitTreeState=clean" "./cmd/$program")
    fi
    ln -sfn "$program-$ARGO" "$CLUSTER/bin/$program"
done

[ -x "$CLUSTER/bin/pause" ] || (cd "$here/pause" && go build -ldflags '-s -w' -o "$CLUSTER/bin/pause" .)
say "built: $(du -shc "$CLUSTER"/bin/*-* | tail -n 1 | cut -f 1) of programs, in $CLUSTER/bin"
