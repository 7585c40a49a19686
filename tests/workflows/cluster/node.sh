#!/usr/bin/env bash
# Starts a node: containerd and kubelet in a mount namespace where the machine seems to have 16 CPUs, or $CPUS, so that pods which ask
# for 4 are scheduled.
#
#   node.sh NAME ADDRESS [LABELS]
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
name=$1 address=$2 labels=${3:-}
cd "$CLUSTER"
W=$CLUSTER
if [ -e "run/$name.pid" ] && kill -0 "$(cat "run/$name.pid")" 2>/dev/null; then exit; fi
mkdir -p "data/$name/containerd" "data/$name/kubelet"
python3 "$here/cpus.py" "${CPUS:-16}" "$W/data/$name/cpus"
ip addr replace "$address/16" dev sluice0
cat >"conf/$name.containerd.toml" <<K
version = 2
root = "$W/data/$name/containerd"
state = "$W/run/$name.containerd"
oom_score = 0
[grpc]
  address = "$W/run/$name.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$W/conf/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
K
cat >"conf/$name.kubelet.yaml" <<K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $W/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $W/pki/$name.crt
tlsPrivateKeyFile: $W/pki/$name.key
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix://$W/run/$name.sock
resolvConf: ""
clusterDomain: cluster.local
maxPods: 500
podPidsLimit: -1
evictionHard: {memory.available: "200Mi", nodefs.available: "5%"}
imageGCHighThresholdPercent: 100
imageMinimumGCAge: 240h
serializeImagePulls: false
nodeStatusUpdateFrequency: 5s
nodeLeaseDurationSeconds: 20
address: $address
port: 10250
healthzPort: 0
readOnlyPort: 0
cgroupsPerQOS: false
enforceNodeAllocatable: []
K
cat >"run/$name.sh" <<N
mount --make-rshared /
mount --bind $W/data/$name/cpus/cpu /sys/devices/system/cpu
mount --bind $W/data/$name/cpus/node /sys/devices/system/node
containerd -c conf/$name.containerd.toml >>log/$name.containerd.log 2>&1 &
echo \$! >run/$name.containerd.pid
for _ in \$(seq 100); do [ -S run/$name.sock ] && break; sleep 0.2; done
for image in pause argoexec-$ARGO workflow-controller-$ARGO sluice; do
    [ ! -e "images/\$image.tar" ] || ctr -a run/$name.sock -n k8s.io images import "images/\$image.tar" >/dev/null
done
while [ ! -e run/$name.stop ]; do
    if [ ! -e run/$name.pause ]; then
        bin/hyper kubelet --config conf/$name.kubelet.yaml --kubeconfig conf/$name.kubeconfig --hostname-override $name --node-ip $address \
            --root-dir $W/data/$name/kubelet ${labels:+--node-labels $labels} >>log/$name.kubelet.log 2>&1 &
        echo \$! >run/$name.kubelet.pid
        wait \$!
    fi
    sleep 1
done
N
rm -f "run/$name.stop" "run/$name.pause"
setsid nohup unshare -m --propagation private bash "run/$name.sh" >>"log/$name.log" 2>&1 </dev/null &
echo $! >"run/$name.pid"
