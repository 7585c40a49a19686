#!/usr/bin/env bash
# Makes the images of the cluster as archives in $CLUSTER/images, without a registry: pause, Argo's two, and Sluice's from the release
# programs. With the nodes up, they are loaded there too.
#
#   images.sh [PROGRAMS]      PROGRAMS: the folder of the release programs (target/release)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
programs=$(realpath "${1:-$repository/target/release}")
cd "$CLUSTER"
# docker-archive: it does not compress.
mkdir -p images build
export CONTAINERS_STORAGE_CONF=$CLUSTER/conf/storage.conf BUILDAH_ISOLATION=chroot
mkdir -p conf && printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "%s"\n' "$CLUSTER/data/storage/graph" "$CLUSTER/data/storage/run" >conf/storage.conf
save() { # NAME FOLDER FILE
    buildah bud -q --isolation chroot -t "$1" "$2" >/dev/null
    rm -f "images/$3.tar"
    podman save -q --format docker-archive -o "images/$3.tar" "$1"
    [ ! -S "$CONTAINERD_ADDRESS" ] || ctr -n k8s.io images import "images/$3.tar" >/dev/null
}
of_argo() { # PROGRAM
    local folder=build/$1 && mkdir -p "$folder/etc" "$folder/tmp" "$folder/zoneinfo"
    cp -L "bin/$1" "$folder/$1" && chmod 1777 "$folder/tmp"
    echo 'hosts: files dns' >"$folder/etc/nsswitch.conf"
    cp -r /usr/share/zoneinfo/Etc "$folder/zoneinfo/" 2>/dev/null || true
    # As in Argo's Dockerfile: the executor runs as root unless told otherwise, the controller as 8737.
    { printf 'FROM scratch\nCOPY etc /etc/\nCOPY tmp /tmp\nCOPY zoneinfo /usr/share/zoneinfo\nCOPY %s /bin/\n' "$1"
        [ "$1" = argoexec ] || echo "USER 8737"
        printf 'ENV PATH=/bin\nENTRYPOINT ["%s"]\n' "$1"; } >"$folder/Dockerfile"
    save "quay.io/argoproj/$1:v$ARGO" "$folder" "$1"
}
mkdir -p build/pause && cp bin/pause build/pause/ && printf 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n' >build/pause/Dockerfile
save localhost/pause:1 build/pause pause
of_argo argoexec
of_argo workflow-controller
# The project's own Dockerfile, on a base of this system's release. The image has `sluice` and links to it by the names of the others,
# of which the names suffice: 400 MB less to copy.
rm -rf build/programs && mkdir -p build/programs
for program in "$programs"/sluice*; do
    case ${program##*/} in *.d | sluice-tests*) ;; *) printf '#!/bin/false\n' >"build/programs/${program##*/}" ;; esac
done
cp "$programs/sluice" build/programs/ && chmod 755 build/programs/*
programs=$PWD/build/programs
cd "$repository"
base=${BASE_ARCHIVE:-$(containers/base.sh)}
podman image exists localhost/base || podman import -q "$base" localhost/base >/dev/null
BUILDER=buildah BASE=localhost/base PROGRAMS=$programs BUILD_FLAGS="--isolation=chroot" containers/build.sh sluice
rm -f "$CLUSTER/images/sluice.tar"
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
podman tag "localhost/sluice:$version" "docker.io/library/sluice:$version"
podman save -q --format docker-archive -o "$CLUSTER/images/sluice.tar" "docker.io/library/sluice:$version"
[ ! -S "$CONTAINERD_ADDRESS" ] || ctr -n k8s.io images import "$CLUSTER/images/sluice.tar" >/dev/null
say "images: $(du -shc "$CLUSTER"/images/*.tar | tail -n 1 | cut -f 1)"
