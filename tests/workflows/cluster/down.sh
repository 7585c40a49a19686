#!/usr/bin/env bash
# Ends the cluster: the processes that up.sh and node.sh started, by their ids, then what they wrote. What was built stays.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$CLUSTER" 2>/dev/null || exit 0
end() { # NAME…
    for name in "$@"; do
        [ ! -e "run/$name.pid" ] || kill "$(cat "run/$name.pid")" 2>/dev/null
    done
}
for node in node1 node2; do
    touch "run/$node.stop"
    end "$node.kubelet"
done
sleep 2
for node in node1 node2; do
    [ -S "run/$node.sock" ] || continue
    for task in $(ctr -a "run/$node.sock" -n k8s.io tasks ls 2>/dev/null | awk 'NR > 1 { print $2 }'); do kill -9 "$task" 2>/dev/null; done
done
sleep 2
end node1.containerd node2.containerd node1 node2 scheduler manager apiserver etcd store
sleep 3
ip link del sluice0 2>/dev/null
ip addr del "$SERVICE/32" dev lo 2>/dev/null
for mounted in $(awk -v folder="$CLUSTER/" 'index($2, folder) == 1 { print $2 }' /proc/mounts | sort -r); do umount -l "$mounted"; done
rm -rf data/etcd data/store data/node1 data/node2 data/cni run pki conf
say "the cluster is down"
