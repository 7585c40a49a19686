#!/usr/bin/env bash
# The images, for real: builds them from target/release on a base made by debootstrap, and runs the DAG from container to
# container against an S3 server, with a read-only root file system, no capability, no network of their own and no root.
#
#   containers/test.sh     (make test-images)
#
# Needs what containers/base.sh needs, `make build models demo-data`, and weed (SeaweedFS) from `make servers`. Where any of
# that cannot be had it says SKIPPED, and ends with 0. A failed check ends it at once, with 1. All that it makes lies in one
# scratch folder and goes with it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s\n' "images: $*" >&2; }
skip() {
    printf '%s\n' "SKIPPED: containers/test.sh: $*"
    exit 0
}
fail() {
    printf '%s\n' "FAILED: containers/test.sh: $*" >&2
    exit 1
}

# --------------------------------------------------------------------------------------------------------- what it needs

base_tar=$(containers/base.sh) || skip "no base, see above"
for needed in target/release/sluice demo/truth.csv .cache/models/opennsfw/model.onnx; do
    [ -e "$needed" ] || fail "no $needed: make build models demo-data"
done
python=python3
[ ! -x .cache/venv/bin/python ] || python=.cache/venv/bin/python
weed=${SLUICE_SERVERS:-.cache/servers/bin}/weed
if [ ! -x "$weed" ]; then
    [ -z "${CI:-}" ] || fail "CI lacks an S3 server: make servers got no weed (SeaweedFS)"
    skip "no S3 server: make servers got no weed (SeaweedFS)"
fi

work=$(mktemp -d)
logs=$work/logs
mkdir "$logs"
server=

cleanup() {
    status=$?
    [ "$status" = 0 ] || for log in $(find "$logs" -name '*.err' -size +0 -printf '%T@ %p\n' | sort -n | tail -n 2 | cut -d ' ' -f 2); do
        printf '%s\n' "--- the end of ${log##*/}:" "$(tail -n 20 "$log")" >&2
    done
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    podman --cgroup-manager cgroupfs --runtime runc rm -fa >"$work/cleanup" 2>&1 || true
    wait 2>/dev/null || true
    local mount
    for mount in $(awk -v below="$work/" 'index($2, below) == 1 { print $2 }' /proc/self/mounts | sort -r); do
        umount "$mount" || true
    done
    rm -rf "$work" "/tmp/seaweedfs-s3-${s3_port:-}.sock"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
trap 'say "line $LINENO ended with $?"' ERR

# Images and containers of its own, away from those of the machine.
driver=overlay
[ "$(stat -f -c %T "$work")" != overlayfs ] || driver=vfs
cat >"$work/storage.conf" <<STORAGE
[storage]
driver = "$driver"
graphroot = "$work/storage/graph"
runroot = "$work/storage/run"
STORAGE
export CONTAINERS_STORAGE_CONF=$work/storage.conf BUILDAH_ISOLATION=chroot

podman=(podman --cgroup-manager cgroupfs --runtime runc)
# The limits on open files and processes are lowered because a sandbox may not let them be raised.
confined=(--pull never --read-only --read-only-tmpfs=false --cap-drop all --security-opt no-new-privileges --network host
    --memory 1g --ulimit nofile=1024:1024 --ulimit nproc=1024:1024)

# ------------------------------------------------------------------------------------------------------------- the images

base=localhost/$(basename "$base_tar" .tar | tr - :)
podman import -q "$base_tar" "$base" >"$logs/import" 2>"$logs/import.err"
"${podman[@]}" run --rm "${confined[@]}" "$base" true 2>"$logs/true.err" ||
    skip "podman cannot run a container here: $(tail -n 1 "$logs/true.err")"

version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
export PROGRAMS=target/release
build() {
    local log=$logs/build-${BUILDER}-$VERSION.err
    BUILD_FLAGS=--pull=never containers/build.sh "$@" >"$log" 2>&1
}
say "building all images"
started=$SECONDS
BASE=$base BUILDER=buildah VERSION=$version build
# Two more of them: with models inside, by podman; and on a base like distroless' cc, with libraries and nothing else.
BASE=$base BUILDER=podman VERSION=baked MODELS=.cache/models build embed
rootfs=$(podman image mount "$base")
mkdir "$work/bare"
(
    cd "$rootfs"
    shopt -s nullglob
    cp -a --parents lib lib64 usr/lib64 usr/lib/*-linux-*/{ld-linux-*,lib{c,m,dl,rt,pthread,gcc_s,stdc++}.so.*} "$work/bare" 2>/dev/null || true
)
tar -C "$work/bare" -c . | podman import -q - localhost/bare >"$logs/import" 2>>"$logs/import.err"
BASE=localhost/bare BUILDER=buildah VERSION=bare build partition read embed
say "built in $((SECONDS - started)) s"

# --------------------------------------------------------------------------------------------------------- what is in them

base_bytes=$(podman image inspect --format '{{.Size}}' "$base")
say "megabytes, base image (${base_bytes%??????} MB) aside:"
containers/build.sh --list >"$work/list"
while read -r target inference; do
    name=sluice-$target
    [ "$target" != sluice ] || name=sluice
    image=localhost/$name:$version
    rootfs=$(podman image mount "$image")
    bytes=$(($(podman image inspect --format '{{.Size}}' "$image") - base_bytes))
    printf '%18s %6.1f\n' "$name" "$(awk -v bytes="$bytes" 'BEGIN { print bytes / 1e6 }')" >&2
    case $inference in
        inference)
            limit=100
            [ -e "$rootfs/usr/local/lib/onnxruntime/libonnxruntime.so" ] || fail "$image lacks ONNX Runtime"
            ;;
        *)
            limit=50
            [ ! -e "$rootfs/usr/local/lib/onnxruntime" ] || fail "$image holds ONNX Runtime, which it does not need"
            ;;
    esac
    [ "$bytes" -lt "${limit}000000" ] || fail "$image has $bytes bytes, the limit is $limit MB"
    [ -s "$rootfs/etc/ssl/certs/ca-certificates.crt" ] || fail "$image has no certificate authorities"
    [ -s "$rootfs/usr/share/sluice/LICENSE" ] || fail "$image has no licence"
    [ -z "$(find "$rootfs" -xdev -name '*.onnx')" ] || fail "$image holds a model"
    podman image inspect "$image" | "$python" -B containers/check_image.py "$rootfs" "$name" "$version"
    podman image umount "$image" >/dev/null
done <"$work/list"

# ------------------------------------------------------------------------------------------------------------ the S3 server

# weed's servers listen for each other 10,000 ports further up.
read -r s3_port master volume filer_port admin < <(
    "$python" - <<'PORTS'
import random, socket
found = []
while len(found) < 5:
    port = random.randrange(12000, 22000)
    try:
        for each in (port, port + 10000):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", each))
        found += [port] * (port not in found)
    except OSError:
        pass
print(*found)
PORTS
)
bucket=sluice-images
filer=http://127.0.0.1:$filer_port/buckets/$bucket
secret=$(od -An -N 20 -tx1 /dev/urandom | tr -d ' \n')
export AWS_ACCESS_KEY_ID=key$RANDOM$RANDOM AWS_SECRET_ACCESS_KEY=$secret AWS_REGION=us-east-1 AWS_ENDPOINT_URL=http://127.0.0.1:$s3_port
mkdir "$work/s3"
"$weed" -logdir="$work" mini -dir="$work/s3" -ip=127.0.0.1 -ip.bind=127.0.0.1 -bucket=$bucket -s3.port="$s3_port" -master.port="$master" \
    -volume.port="$volume" -filer.port="$filer_port" -admin.port="$admin" -admin.ui=false -webdav=false -s3.port.iceberg=0 \
    -s3.port.lance=0 >"$work/weed.log" 2>&1 &
server=$!
for _ in $(seq 300); do
    ! curl -sf -o /dev/null -H 'Accept: application/json' "$filer/" || break
    sleep 0.1
done
curl -sf -o /dev/null "$AWS_ENDPOINT_URL/healthz" || fail "the S3 server does not start: $(tail -n 1 "$work/weed.log")"

# Around S3, by the server's own file tree: what the programs read and write goes through S3 itself.
put() { curl -sSf -o /dev/null -T "$1" "$filer/$2"; }
get() { curl -sSf "$filer/$1"; }
names() { # prints the names in a folder; folders end in a slash
    curl -sf -H 'Accept: application/json' "$filer/$1/?limit=10000" | "$python" -c 'import json, sys
for entry in json.load(sys.stdin)["Entries"] or []:
    print(entry["FullPath"].rsplit("/", 1)[1] + "/" * (entry["Mode"] >> 31))'
}
for shard in demo/input/*.tar; do
    put "$shard" "input/${shard##*/}"
done
for model in .cache/models/*/*; do
    put "$model" "models/${model#.cache/models/}"
done

# ------------------------------------------------------------------------------------------------------------------ the DAG

# By name, so that no command line has the secret.
credentials=(--env AWS_ACCESS_KEY_ID --env AWS_SECRET_ACCESS_KEY --env AWS_REGION --env AWS_ENDPOINT_URL)
# container NAME IMAGE ARGUMENT…: stdout to logs/NAME.out, logs to logs/NAME.err
container() {
    "${podman[@]}" run --rm "${confined[@]}" "${more[@]}" "${credentials[@]}" "localhost/$2" "${@:3}" \
        >"$logs/$1.out" 2>"$logs/$1.err"
}
more=(--user 65532:65532)

say "running the DAG here, on local disk"
target/release/sluice run --input demo/input --run "$work/run" --output "$work/out" --embedder efficientnet-lite0 \
    --aesthetic technical-quality --nsfw opennsfw --eps 0.15 --models "$PWD/.cache/models" >"$work/local.json" 2>"$logs/local.err"
# The command lines that it ran, with URIs for paths.
"$python" - "$work/local.json" >"$work/steps" <<STEPS
import json, shlex, sys
places = {"$work/run": "s3://$bucket/run", "$work/out": "s3://$bucket/out", "demo/input": "s3://$bucket/input"}
def placed(word):
    flag, equals, value = word.partition("=")
    return flag + equals + places.get(value, value)
for step in json.load(open(sys.argv[1]))["steps"]:
    words = shlex.split(step["command"])
    # The containers have SLUICE_MODELS. Rules contain spaces, so words are separated by tabs.
    print(step["step"], *(placed(word) for word in words if not word.startswith("--models=")), sep="\\t")
STEPS
say "running the DAG from container to container, on S3"
started=$SECONDS
export SLUICE_MODELS=s3://$bucket/models
more+=(--env SLUICE_MODELS)
while IFS=$'\t' read -ra words; do
    container "${words[0]}" "${words[1]}:$version" "${words[@]:2}" || fail "step ${words[0]} ended with $?"
done <"$work/steps"
say "$(wc -l <"$work/steps") steps in $((SECONDS - started)) s"
container verify "sluice:$version" verify --run "s3://$bucket/run" || fail "sluice verify ended with $?: $(cat "$logs/verify.out")"
[ "$(names out | LC_ALL=C sort)" = "$(ls -A "$work/out" | LC_ALL=C sort)" ] || fail "the output on S3 has other files than the one on local disk: $(names out)"
# Shards byte for byte; README.md, croissant.json and index.json may name the places, which differ.
placeless() { sed -E "s#s3://$bucket/|$work/|$PWD/demo/##g"; }
for file in "$work/out"/*; do
    get "out/${file##*/}" >"$work/file"
    case $file in
        *.tar | *.parquet) cmp "$work/file" "$file" ;;
        *) cmp <(placeless <"$work/file") <(placeless <"$file") ;;
    esac || fail "${file##*/} differs between S3 and local disk: $(diff "$work/file" "$file" | head -n 6)"
done
while IFS=$'\t' read -ra words; do
    step=${words[0]}
    [ "$step" != read ] && [ "$step" != embed ] && continue
    container "$step-again" "${words[1]}:$version" "${words[@]:2}" || fail "step $step, run again, ended with $?"
    grep -q '"status":"up-to-date"' "$logs/$step-again.out" || fail "step $step, run again, did its work again"
done <"$work/steps"

# --------------------------------------------------------------------------------------- models, users, threads, signals

say "models, users, threads, signals"
more=()
status=0
container no-model "sluice-embed:$version" --run "s3://$bucket/run" --model efficientnet-lite0 || status=$?
if [ $status != 2 ] || ! grep -q 'hint: .*sluice models pull' "$logs/no-model.out"; then
    fail "without a model: exit code $status, $(cat "$logs/no-model.out")"
fi
container baked "sluice-embed:baked" --run "s3://$bucket/run" --survivors-of exact --model efficientnet-lite0 || fail "with models baked in: $?"
grep -q '"status":"up-to-date"' "$logs/baked.out" || fail "the baked model is not the same: $(cat "$logs/baked.out")"

# From here on images without a shell, and as the user that they name themselves.
container stop-partition sluice-partition:bare --run "s3://$bucket/stop" --input "s3://$bucket/input" --shards-per-partition 1
container stop-read sluice-read:bare --run "s3://$bucket/stop"

receipts() { names stop/embed/receipts 2>/dev/null | wc -l || true; }
threads() { cat "/proc/$pid/task"/*/comm 2>/dev/null | grep -c '^sluice-embed' || true; }
# start NAME CPUS: embeds in the background; waits until one more partition is done. Sets `most` to
# the threads that were seen at once.
start() {
    local already now
    already=$(receipts)
    most=0
    "${podman[@]}" run -d --name "$1" --cpus "$2" "${confined[@]}" "${credentials[@]}" --env SLUICE_MODELS localhost/sluice-embed:bare \
        --run "s3://$bucket/stop" --model efficientnet-lite0 >"$logs/$1.id" 2>"$logs/$1.err"
    pid=$(podman inspect --format '{{.State.Pid}}' "$1")
    for _ in $(seq 600); do
        now=$(threads)
        [ "$most" -ge "$now" ] || most=$now
        [ "$(receipts)" = "$already" ] || return 0
        sleep 0.05
    done
    podman logs "$1" >&2
    fail "no partition embedded within 30 s"
}
# ended NAME: waits for its end; its logs, and its exit code as `status`.
ended() {
    status=$("${podman[@]}" wait "$1")
    podman logs "$1" >"$logs/$1.out" 2>>"$logs/$1.err"
}

start stopped 0.5
[ "$(awk '/^Uid:/ { print $2, $3 }' "/proc/$pid/status")" = "65532 65532" ] || fail "does not run as 65532"
[ "$(awk '/^Cap(Prm|Eff|Bnd):/ { print $2 }' "/proc/$pid/status" | sort -u)" = 0000000000000000 ] || fail "has capabilities"
threads_of_one=$most
before=$(date +%s%N)
"${podman[@]}" kill --signal TERM stopped >"$logs/kill"
ended stopped
took=$((($(date +%s%N) - before) / 1000000))
[ "$status" = 143 ] || fail "SIGTERM: exit code $status"
[ "$took" -lt 5000 ] || fail "SIGTERM: took $took ms"
grep -q '"kind":"stopped"' "$logs/stopped.out" || fail "SIGTERM: no result: $(cat "$logs/stopped.out")"
done=$(receipts)
[ "$done" -lt 4 ] || fail "SIGTERM came too late to tell anything"
[ "$(names stop/embed/receipts | sed 's/json$//')" = "$(names stop/embed/embeddings | sed 's/parquet$//')" ] ||
    fail "SIGTERM left something half-written: $(names stop/embed/embeddings | tr '\n' ' ')"
say "SIGTERM: 143 after $took ms, with $done of 4 partitions done"

start resumed 2
threads_of_two=$most
ended resumed
[ "$status" = 0 ] || fail "after SIGTERM, run again: exit code $status"
grep -q "\"done\":$((4 - done)),\"total\":4,\"up_to_date\":$done" "$logs/resumed.out" ||
    fail "after SIGTERM, run again: $(cat "$logs/resumed.out")"
[ "$(nproc)" = 1 ] || [ "$threads_of_one" -lt "$threads_of_two" ] ||
    fail "$threads_of_one threads with half a CPU, $threads_of_two with two"

# ------------------------------------------------------------------------------------------------------------- no secrets

say "no secrets"
mkdir "$work/objects"
podman images --format '{{.ID}}' | sort -u | xargs podman image inspect >"$logs/images.out"
keep() { # every object below a prefix
    local name
    for name in $(names "$1"); do
        case $name in
            */) keep "$1/${name%/}" ;;
            *) get "$1/$name" >"$work/objects/$(tr / - <<<"$1/$name")" ;;
        esac
    done
}
keep run
keep stop
[ "$(find "$work/objects" -type f | wc -l)" -gt 40 ] || fail "where are the run's objects?"
! grep -rlF -e "$secret" "$logs" "$work/objects" "$work/out" || fail "the secret is in these files"
say "all is well, after $SECONDS s"
