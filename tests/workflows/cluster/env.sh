# shellcheck shell=bash disable=SC2034
# What the scripts of this folder share. CLUSTER: the folder for everything that is built, and for what the cluster writes.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../../.." && pwd)
CLUSTER=${CLUSTER:-$repository/.cache/cluster}
KUBERNETES=${KUBERNETES:-1.34.4} # the newest that Debian's etcd 3.4 and cgroups v1 suffice for
ARGO=${ARGO:-4.0.2}              # or 4.1.x
# Pods reach the store and the API by this bridge.
BRIDGE=10.88.0.1
SERVICE=10.96.0.1
STORE=http://$BRIDGE:28333
export AWS_ENDPOINT_URL=$STORE
export CLUSTER KUBERNETES ARGO BRIDGE STORE
export PATH=$CLUSTER/bin:$PATH KUBECONFIG=$CLUSTER/conf/admin.kubeconfig CONTAINERD_ADDRESS=$CLUSTER/run/node1.sock
export AWS_ACCESS_KEY_ID=AKIDCLUSTER AWS_SECRET_ACCESS_KEY=cluster+test/secret AWS_REGION=us-east-1

say() { printf '%s %s\n' "$(date -u +%T)" "$*" >&2; }
stop() {
    printf '%s\n' "error: $1" "hint:  $2" >&2
    exit 1
}
