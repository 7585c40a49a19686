#!/usr/bin/env bash
# Installs Argo's controller as its own manifests have it, with the setting of the executor that this project ships, and a namespace
# under Pod Security "restricted" and a ResourceQuota, with Sluice's templates and secret.
#
#   argo.sh [NAMESPACE]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
namespace=${1:-sluice}

install_controller() {
    kubectl apply --server-side --force-conflicts -k "$CLUSTER/src/argo-$ARGO/manifests/base/crds/full" >/dev/null
    kubectl create namespace argo >/dev/null
    work=$CLUSTER/src/argo-$ARGO/installed && mkdir -p "$work"
    cat >"$work/kustomization.yaml" <<K
namespace: argo
resources: [../manifests/cluster-install-no-crds]
images: [{name: quay.io/argoproj/workflow-controller, newTag: v$ARGO}]
patches:
  - {target: {kind: Deployment, name: argo-server}, patch: '[{"op": "add", "path": "/spec/replicas", "value": 0}]'}
K
    kubectl apply --server-side --force-conflicts -k "$work" >/dev/null
    kubectl apply --server-side --force-conflicts -n argo -f "$repository/workflows/argo/controller/executor.yaml" >/dev/null
    kubectl -n argo rollout status deployment/workflow-controller --timeout=180s >&2
}
[ -n "$(kubectl get namespace argo --ignore-not-found --output name)" ] || install_controller

kubectl get namespace "$namespace" >/dev/null 2>&1 || kubectl create namespace "$namespace" >/dev/null
kubectl label --overwrite namespace "$namespace" pod-security.kubernetes.io/enforce=restricted >/dev/null
kubectl -n "$namespace" create quota all --dry-run=client -o yaml \
    --hard=requests.cpu=999,requests.memory=9Ti,limits.cpu=999,limits.memory=9Ti | kubectl apply -f - >/dev/null
kubectl -n "$namespace" create secret generic sluice-store --dry-run=client -o yaml \
    --from-literal=AWS_ACCESS_KEY_ID="$AWS_ACCESS_KEY_ID" --from-literal=AWS_SECRET_ACCESS_KEY="$AWS_SECRET_ACCESS_KEY" \
    --from-literal=AWS_REGION="$AWS_REGION" --from-literal=AWS_ENDPOINT_URL="$STORE" \
    --from-literal=SLUICE_MODELS=s3://sluice/models | kubectl apply -f - >/dev/null
kubectl -n "$namespace" apply -k "$repository/workflows/argo" >/dev/null
say "Argo $ARGO works in the namespace $namespace"
