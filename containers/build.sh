#!/usr/bin/env bash
# Builds the images with docker, podman or buildah, whichever is there and works.
#
#   containers/build.sh [IMAGE…]        all images, or those that are named: the stages by their folders, and sluice
#   containers/build.sh --list          prints their names, and `inference` for those with ONNX Runtime
#
# Environment:
#   PROGRAMS       a folder with the release programs, built on a system whose glibc is not newer than the base's: nothing
#                  is compiled then (`target/release`). Empty: the Dockerfile compiles them
#   ACCELERATOR    cpu (default) or cuda: then the tag ends in -cuda, and the images are those that run models
#   MODELS         a folder of the repository with models to bake in; empty: none
#   IMAGE_PREFIX   goes before the image's name, such as `registry.example/team/`
#   VERSION        the tag; default: the workspace's version
#   SOURCE         where the sources are, for the label org.opencontainers.image.source
#   BASE, RUST     images to build on, see the Dockerfile
#   BUILDER        docker, podman or buildah, if it is not to be found out
#   BUILD_FLAGS    more flags for it, separated by spaces
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s\n' "images: $*" >&2; }
stop() {
    printf '%s\n' "error: $1" "hint:  $2" >&2
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# The images: the stages' folders, and sluice with all programs. A program that links ONNX Runtime gets its library.
stages() { find stages -mindepth 2 -maxdepth 2 -name Cargo.toml -printf '%h\n' | sed 's#.*/##' | LC_ALL=C sort; }
has_inference() { [ "$1" = sluice ] || grep -qE '^sluice-(inference|scoring|model)\b' "stages/$1/Cargo.toml"; }
# Prints the first sentence of a stage's module documentation, without its name.
description() { sed -n '1s/^[^:]*: \([^.]*\).*$/\1/p' "stages/$1/src/lib.rs"; }
mapfile -t all < <(stages)
all+=(sluice)
inference=()
for image in "${all[@]}"; do
    ! has_inference "$image" || inference+=("$image")
done
if [ "${1:-}" = --list ]; then
    for image in "${all[@]}"; do
        has_inference "$image" && echo "$image inference" || echo "$image"
    done
    exit
fi

# Builds share a folder: one at a time.
mkdir -p .cache/images
exec {lock}>.cache/images/.lock
! has flock || flock "$lock"

accelerator=${ACCELERATOR:-cpu}
version=${VERSION:-$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)}
revision=$(git describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null || echo unknown)
case $accelerator in
    cpu) tag=$version ;;
    cuda) all=("${inference[@]}") tag=$version-cuda ;;
    *) stop "ACCELERATOR=$accelerator" "cpu or cuda" ;;
esac
targets=("$@")
[ $# -gt 0 ] || targets=("${all[@]}")
for target in "${targets[@]}"; do
    case " ${all[*]} " in
        *" $target "*) ;;
        *) stop "there is no image $target for $accelerator" "there are: ${all[*]}" ;;
    esac
done

# A program that is there may still not work: docker without its daemon, podman without a place for its images.
find_builder() {
    local tool
    for tool in docker podman buildah; do
        if has "$tool" && "$tool" info >/dev/null 2>&1; then
            echo "$tool"
            return
        fi
    done
    stop "neither docker (with its daemon), podman nor buildah works here" \
        "install one: 'apt-get install buildah' on Debian and Ubuntu, 'dnf install podman' on Fedora"
}

# What the images are made of, laid out as the Dockerfile's part `parts`.
lay_out() {
    local parts=.cache/images/$accelerator
    [ -x "$PROGRAMS/sluice" ] || stop "no programs in $PROGRAMS" "make build"
    export PYTHON=${PYTHON:-python3}
    [ ! -x .cache/venv/bin/python ] || PYTHON=$PWD/.cache/venv/bin/python
    [ -x .cache/tools/cargo/bin/cargo-cyclonedx ] || say "compiling cargo-cyclonedx, for bills of materials: some minutes, once"
    say "gathering programs, bills of materials, ONNX Runtime"
    rm -rf "$parts/programs" "$parts/sbom" "$parts/links"
    mkdir -p "$parts/programs"
    find -L "$PROGRAMS" -maxdepth 1 -name 'sluice*' ! -name 'sluice-tests*' -type f -perm /111 -exec cp {} "$parts/programs" \;
    containers/links.sh "$parts/programs" "$parts/links"
    "$PYTHON" -B containers/sbom.py --tools .cache/tools/cargo --accelerator "$accelerator" "$parts/sbom"
    containers/wheels.sh certificates "$parts/certificates"
    containers/wheels.sh "$accelerator" "$parts/onnxruntime"
    echo "$parts"
}

builder=${BUILDER:-$(find_builder)}
case $builder in
    docker) build=(env DOCKER_BUILDKIT=1 docker build) ;;
    podman | buildah) build=("$builder" build --layers --ignorefile containers/Dockerfile.dockerignore) ;;
    *) stop "BUILDER=$builder" "docker, podman or buildah" ;;
esac
read -ra flags <<<"${BUILD_FLAGS:-}"
build+=("${flags[@]}" --build-arg "ACCELERATOR=$accelerator" --build-arg "VERSION=$version"
    --build-arg "REVISION=$revision")
for name in BASE RUST MODELS; do
    [ -z "${!name:-}" ] || build+=(--build-arg "$name=${!name}")
done
[ -z "${SOURCE:-}" ] || build+=(--label "org.opencontainers.image.source=$SOURCE")
if [ -n "${PROGRAMS:-}" ]; then
    parts=$(lay_out)
    build+=(--build-arg "READY=$parts")
fi

# docker finds the list of what it does not send by the Dockerfile's name.
cp containers/Dockerfile.dockerignore .cache/images/
for target in "${targets[@]}"; do
    more=()
    case $target in
        sluice) name=sluice image_target=sluice ;;
        *)
            name=sluice-$target image_target=stage
            ! has_inference "$target" || image_target=stage-inference
            more=(--build-arg "DESCRIPTION=$(description "$target")")
            ;;
    esac
    sed "s/@STAGE@/$target/g" containers/Dockerfile >.cache/images/Dockerfile
    image=${IMAGE_PREFIX:-}$name:$tag
    say "$image, by $builder"
    "${build[@]}" "${more[@]}" -f .cache/images/Dockerfile --target "$image_target" -t "$image" .
done
