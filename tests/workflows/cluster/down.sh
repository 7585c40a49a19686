#!/usr/bin/env bash
# Ends the cluster: the processes that up.sh and node.sh started, by their ids; containers, mounts, network; then what they wrote.
# What was built stays. A second call does nothing.
set -uo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$CLUSTER" 2>/dev/null || exit 0

# A process id may have been given to somebody else since: ours have $CLUSTER in their environment.
ours() { grep -qzxF "CLUSTER=$CLUSTER" "/proc/$1/environ" 2>/dev/null; }
alive() {
    for process in "$@"; do ! ours "$process" || echo "$process"; done
}
# SIGTERM, 10 s, SIGKILL.
end_processes() { # PID…
    local left=("$@")
    for signal in TERM KILL; do
        read -ra left <<<"$(alive "${left[@]}" | tr '\n' ' ')"
        [ ${#left[@]} -gt 0 ] || return 0
        kill "-$signal" "${left[@]}" 2>/dev/null
        for _ in $(seq 50); do [ -n "$(alive "${left[@]}")" ] && sleep 0.2 || return 0; done
    done
    say "still there: ${left[*]}"
}
end() { # NAME…
    local processes=()
    for name in "$@"; do [ ! -e "run/$name.pid" ] || processes+=("$(cat "run/$name.pid")"); done
    end_processes "${processes[@]}"
}

nodes=(node1 node2)
for node in "${nodes[@]}"; do touch "run/$node.stop" 2>/dev/null; done
end "${nodes[@]/%/.kubelet}" "${nodes[@]}"
for node in "${nodes[@]}"; do
    [ -S "run/$node.sock" ] || continue
    for task in $(timeout 20 ctr -a "run/$node.sock" -n k8s.io tasks ls 2>/dev/null | awk 'NR > 1 && $2 > 0 { print $2 }'); do kill -9 "$task" 2>/dev/null; done
done
end "${nodes[@]/%/.containerd}"
# A shim outlives containerd; the pause container of a pod, and with it the pod's network, outlives a shim.
mapfile -t shims < <(pgrep -f "^\S*containerd-shim-runc-v2 .*-address $CLUSTER/run/")
for shim in "${shims[@]}"; do pkill -KILL -P "$shim"; done
end_processes "${shims[@]}"
end scheduler manager apiserver etcd store

ip link del sluice0 2>/dev/null
ip addr del "$SERVICE/32" dev lo 2>/dev/null
for mounted in $(awk -v folder="$CLUSTER/" 'index($2, folder) == 1 { print $2 }' /proc/mounts | sort -r); do umount -l "$mounted"; done
for network in /run/netns/cni-*; do [ ! -e "$network" ] || mountpoint -q "$network" || rm -f "$network"; done
# The empty groups of the containers.
find /sys/fs/cgroup -depth -type d -path '*/k8s.io*' -exec rmdir {} + 2>/dev/null
rm -rf data/etcd data/store data/node1 data/node2 data/cni run pki conf
say "the cluster is down"
