#!/usr/bin/env bash
# Makes the images of the cluster as archives in $CLUSTER/images, without a registry: pause, Argo's two, and Sluice's from the release
# programs. An archive that is newer than its program is kept. Nodes that are up load them.
#
#   images.sh [PROGRAMS [IMAGE…]]      PROGRAMS: the folder of the release programs (target/release); IMAGE: pause, argo, sluice
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
programs=$(realpath "${1:-$repository/target/release}")
cd "$CLUSTER"
mkdir -p images build conf log
export CONTAINERS_STORAGE_CONF=$CLUSTER/conf/storage.conf BUILDAH_ISOLATION=chroot
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "%s"\n' "$CLUSTER/data/storage/graph" "$CLUSTER/data/storage/run" >conf/storage.conf

is_fresh() { [ "images/$1.tar" -nt "$2" ]; } # FILE PROGRAM
save() {                                       # NAME FILE
    rm -f "images/$2.tar"
    # docker-archive: it does not compress.
    podman save -q --format docker-archive -o "images/$2.tar" "$1"
    local socket
    for socket in run/*.sock; do
        [ ! -S "$socket" ] || ctr -a "$socket" -n k8s.io images import "images/$2.tar" >/dev/null
    done
}
build() { buildah bud -q --isolation chroot -t "$1" "$2" >/dev/null; } # NAME FOLDER

pause() {
    ! is_fresh pause bin/pause || return 0
    mkdir -p build/pause && cp bin/pause build/pause/
    printf 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n' >build/pause/Dockerfile
    build localhost/pause:1 build/pause && save localhost/pause:1 pause
}
# As in Argo's Dockerfile: the executor runs as root unless told otherwise, the controller as 8737.
of_argo() { # PROGRAM
    local folder=build/$1 user=
    ! is_fresh "$1-$ARGO" "bin/$1-$ARGO" || return 0
    [ "$1" = argoexec ] || user="USER 8737\n"
    mkdir -p "$folder/etc" "$folder/tmp" "$folder/zoneinfo" && chmod 1777 "$folder/tmp"
    cp "bin/$1-$ARGO" "$folder/$1"
    echo 'hosts: files dns' >"$folder/etc/nsswitch.conf"
    cp -r /usr/share/zoneinfo/Etc "$folder/zoneinfo/" 2>/dev/null || true
    printf "FROM scratch\nCOPY etc /etc/\nCOPY tmp /tmp\nCOPY zoneinfo /usr/share/zoneinfo\nCOPY %s /bin/\n${user}ENV PATH=/bin\nENTRYPOINT [\"%s\"]\n" \
        "$1" "$1" >"$folder/Dockerfile"
    build "quay.io/argoproj/$1:v$ARGO" "$folder" && save "quay.io/argoproj/$1:v$ARGO" "$1-$ARGO"
}
argo() {
    of_argo argoexec
    of_argo workflow-controller
}
# The project's own Dockerfile, on a base of this system's release. The image has `sluice` and links to it by the names of the others:
# their names are enough, and their 400 MB are not copied.
sluice() {
    ! is_fresh sluice "$programs/sluice" || return 0
    rm -rf build/programs && mkdir -p build/programs
    for program in "$programs"/sluice-*; do
        case ${program##*/} in *.d | sluice-tests*) ;; *) printf '#!/bin/false\n' >"build/programs/${program##*/}" ;; esac
    done
    cp "$programs/sluice" build/programs/ && chmod 755 build/programs/*
    local base version
    base=${BASE_ARCHIVE:-$("$repository/containers/base.sh")}
    podman image exists localhost/base || (cd "$repository" && podman import -q "$base" localhost/base >/dev/null)
    BUILDER=buildah BASE=localhost/base PROGRAMS=$CLUSTER/build/programs BUILD_FLAGS="--isolation=chroot" "$repository/containers/build.sh" sluice 2>&1 |
        tee log/images.log | { grep --line-buffered ^images: || true; } >&2 ||
        stop "the image sluice is not built: $(tail -n 1 log/images.log)" "the log is $CLUSTER/log/images.log"
    version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' "$repository/Cargo.toml")
    podman tag "localhost/sluice:$version" "docker.io/library/sluice:$version"
    save "docker.io/library/sluice:$version" sluice
}

wanted=("${@:2}")
[ ${#wanted[@]} -gt 0 ] || wanted=(pause argo sluice)
for image in "${wanted[@]}"; do "$image"; done
say "images: $(du -shc "$CLUSTER"/images/*.tar | tail -n 1 | cut -f 1)"
