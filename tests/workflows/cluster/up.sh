#!/usr/bin/env bash
# Starts the cluster: certificates, etcd, the control plane, a node, the store, images, Argo. Needs root.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
[ "$(id -u)" = 0 ] || stop "a cluster needs root" "sudo make test-cluster, on a machine that may be changed"
for tool in etcd containerd runc kubectl openssl ip buildah podman; do
    command -v "$tool" >/dev/null || missing="${missing:-}$tool "
done
[ -z "${missing:-}" ] || stop "no ${missing% }" \
    "apt-get install etcd-server containerd runc containernetworking-plugins buildah podman kubernetes-client"
cd "$CLUSTER"
mkdir -p pki conf/cni run log data/etcd data/store images
# etcd waits for the disk on every write, which takes seconds on a busy machine.
mountpoint -q data/etcd || mount -t tmpfs -o size=1g cluster-etcd data/etcd
export W=$CLUSTER

# Certificates and kubeconfigs.
cert() { # NAME SUBJECT [NAMES]
    [ -e "pki/$1.crt" ] && return
    openssl req -newkey rsa:2048 -nodes -keyout "pki/$1.key" -out "pki/$1.csr" -subj "$2" 2>/dev/null
    printf 'basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n%s\n' "${3:+subjectAltName=$3}" >"pki/$1.ext"
    openssl x509 -req -in "pki/$1.csr" -CA pki/ca.crt -CAkey pki/ca.key -CAcreateserial -days 30 -extfile "pki/$1.ext" \
        -out "pki/$1.crt" 2>/dev/null
}
[ -e pki/ca.crt ] || openssl req -x509 -newkey rsa:2048 -nodes -keyout pki/ca.key -out pki/ca.crt -subj /CN=cluster-test -days 30 2>/dev/null
cert apiserver /CN=kube-apiserver "IP:127.0.0.1,IP:$SERVICE,IP:$BRIDGE,DNS:kubernetes.default.svc,DNS:localhost"
cert admin /O=system:masters/CN=admin
cert manager /CN=system:kube-controller-manager
cert scheduler /CN=system:kube-scheduler
cert kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
for node in node1:$BRIDGE node2:10.88.0.2; do cert "${node%:*}" "/O=system:nodes/CN=system:node:${node%:*}" "IP:${node#*:},DNS:${node%:*}"; done
[ -e pki/sa.key ] || { openssl genrsa -out pki/sa.key 2048 2>/dev/null && openssl rsa -in pki/sa.key -pubout -out pki/sa.pub 2>/dev/null; }
for user in admin manager scheduler node1 node2; do
    cat >"conf/$user.kubeconfig" <<K
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1", certificate-authority: $W/pki/ca.crt}}]
users: [{name: u, user: {client-certificate: $W/pki/$user.crt, client-key: $W/pki/$user.key}}]
contexts: [{name: x, context: {cluster: c, user: u, namespace: default}}]
current-context: x
K
done

# The bridge of the pods has a fixed MAC address: it would take that of each new port. No kube-proxy: the address of the API's
# service is this machine's.
ip link show sluice0 >/dev/null 2>&1 || { ip link add sluice0 address 02:58:0a:58:00:01 type bridge && ip addr add $BRIDGE/16 dev sluice0 && ip link set sluice0 up; }
ip addr replace $SERVICE/32 dev lo
cat >conf/cni/10-bridge.conflist <<K
{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "sluice0", "isGateway": true, "ipMasq": false,
  "hairpinMode": true, "ipam": {"type": "host-local", "dataDir": "$W/data/cni", "routes": [{"dst": "0.0.0.0/0"}],
  "ranges": [[{"subnet": "10.88.0.0/16", "rangeStart": "10.88.1.1", "rangeEnd": "10.88.20.254", "gateway": "$BRIDGE"}]]}}]}
K

start() { # NAME COMMAND…
    local name=$1 && shift
    if [ -e "run/$name.pid" ] && kill -0 "$(cat "run/$name.pid")" 2>/dev/null; then return; fi
    setsid nohup "$@" >>"log/$name.log" 2>&1 </dev/null &
    echo $! >"run/$name.pid"
}
wait_for() { # SECONDS WHAT COMMAND…
    local seconds=$1 what=$2 && shift 2
    for _ in $(seq "$seconds"); do "$@" >/dev/null 2>&1 && return || sleep 1; done
    stop "$what does not come up" "the logs are in $W/log"
}

client=http://127.0.0.1:12379
start etcd etcd --data-dir data/etcd --listen-client-urls $client --advertise-client-urls $client --listen-peer-urls http://127.0.0.1:12380 \
    --initial-advertise-peer-urls http://127.0.0.1:12380 --initial-cluster default=http://127.0.0.1:12380
start apiserver "$W/bin/hyper" kube-apiserver --etcd-servers $client --bind-address 0.0.0.0 --advertise-address $SERVICE --secure-port 443 \
    --tls-cert-file pki/apiserver.crt --tls-private-key-file pki/apiserver.key --client-ca-file pki/ca.crt \
    --service-account-key-file pki/sa.pub --service-account-signing-key-file pki/sa.key \
    --service-account-issuer https://kubernetes.default.svc --service-cluster-ip-range 10.96.0.0/16 \
    --authorization-mode Node,RBAC --kubelet-client-certificate pki/kubelet-client.crt --kubelet-client-key pki/kubelet-client.key \
    --kubelet-certificate-authority pki/ca.crt --enable-admission-plugins NodeRestriction --endpoint-reconciler-type none \
    --feature-gates WatchList=false --kubelet-preferred-address-types InternalIP
wait_for 180 "the API server" kubectl get --raw /readyz
start manager "$W/bin/hyper" kube-controller-manager --kubeconfig conf/manager.kubeconfig --service-account-private-key-file pki/sa.key \
    --root-ca-file pki/ca.crt --use-service-account-credentials=true --leader-elect=false \
    --cluster-signing-cert-file pki/ca.crt --cluster-signing-key-file pki/ca.key --node-monitor-grace-period=40s
start scheduler "$W/bin/hyper" kube-scheduler --kubeconfig conf/scheduler.kubeconfig --leader-elect=false

"$here/node.sh" node1 $BRIDGE
wait_for 120 "the node" sh -c "kubectl get node node1 | grep -qw Ready"

weed=${WEED:-$repository/.cache/servers/bin/weed}
start store "$weed" -logdir=log mini -dir=data/store -ip=$BRIDGE -ip.bind=0.0.0.0 -bucket=sluice -s3.port=28333 -master.port=29333 \
    -volume.port=28091 -filer.port=28898 -admin.port=28646 -s3.port.grpc=28334 -master.port.grpc=29334 -volume.port.grpc=28092 \
    -filer.port.grpc=28899 -admin.port.grpc=28647 -webdav=false -admin.ui=false -s3.port.iceberg=0 -s3.port.lance=0
wait_for 60 "the store" curl -sf -o /dev/null $STORE/healthz
say "the cluster is up: KUBECONFIG=$KUBECONFIG"
