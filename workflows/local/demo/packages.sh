# shellcheck shell=bash
# Installs programs on Debian and Ubuntu. Sourced by tools.sh and tests/servers/install.sh.

has() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" = 0 ]; }

# apt_install PACKAGE…, as root: installs packages. New images have no package lists, hence the second try.
apt_install() {
    is_root && has apt-get || return 1
    say "installing $*"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@")
    "${install[@]}" >/dev/null 2>&1 || { apt-get -qq update >/dev/null 2>&1 && "${install[@]}" >/dev/null 2>&1; }
}

# apt_unpack PACKAGE FOLDER, as any user: unpacks a package and its missing dependencies into FOLDER/root. Package lists
# and downloads are private, because the system's may be missing or unreadable.
apt_unpack() {
    has apt-get && has dpkg || return 1
    say "unpacking the package $1"
    mkdir -p "$2/apt/lists/partial" "$2/apt/cache/archives/partial"
    local folder
    folder=$(cd "$2" && pwd)
    local private=(-o "Dir::State::Lists=$folder/apt/lists" -o "Dir::Cache=$folder/apt/cache"
        -o "APT::Sandbox::User=$(id -un)" -o Debug::NoLocking=1 -o APT::Update::Post-Invoke::=)
    apt-get -qq "${private[@]}" update >/dev/null 2>&1 &&
        apt-get -qq "${private[@]}" install -y --no-install-recommends --download-only "$1" >/dev/null 2>&1 || return 1
    local package
    for package in "$folder"/apt/cache/archives/*.deb; do
        dpkg -x "$package" "$folder/root" 2>/dev/null || return 1
    done
    rm -rf "$folder/apt"
}
