#!/usr/bin/env bash
# Makes the base of the images that tests build: this system's release, by debootstrap, in .cache/images. Prints its path.
#
#   containers/base.sh
#
# Needs root on Debian or Ubuntu. buildah, podman, runc, debootstrap and curl are installed when missing. Where any of that
# cannot be had it says why, and ends with 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}
# shellcheck source=workflows/local/demo/packages.sh
. workflows/local/demo/packages.sh

is_root || fail "images are built and run as root, and this is not root"
missing=()
for tool in buildah podman runc debootstrap curl; do
    has "$tool" || missing+=("$tool")
done
[ ${#missing[@]} = 0 ] || apt_install "${missing[@]}" >&2 || fail "no ${missing[*]}, and apt-get does not install them"

# The programs were built on this system, so the base is this system's release, from where this system gets its packages.
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
base=.cache/images/base-$codename.tar
if [ ! -e "$base" ]; then
    # shellcheck disable=SC2016  # apt-get fills these in
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' | awk -v name="$codename" '$2 == name { print $1; exit }')
    [ -n "$mirror" ] || fail "apt knows no repository of $codename"
    printf '%s\n' "images: making the base: $codename, by debootstrap" >&2
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    debootstrap --variant=minbase "$codename" "$work/rootfs" "$mirror" >"$work/log" 2>&1 ||
        fail "debootstrap cannot make $codename here: $(tail -n 1 "$work/log")"
    mkdir -p "${base%/*}"
    tar -C "$work/rootfs" --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./dev/*' -cf "$base.part" .
    mv "$base.part" "$base"
fi
printf '%s\n' "$base"
