# shellcheck shell=bash
# The programs of the lab, out of Debian's packages, unpacked into the cache.
#
# Nothing is installed: apt runs with a state folder of its own in which no package is installed, so it
# resolves whole dependency trees whatever the host holds (a QEMU from backports, held packages, no
# right to install). It needs neither root nor a change of the host.

# apt PROGRAM ARGUMENT...: apt-get or apt-cache on the lab's own state.
apt() {
    local program=$1
    shift
    "$program" -q \
        -o Dir::State="$CACHE/apt" -o Dir::State::lists="$CACHE/apt/lists" -o Dir::State::status="$CACHE/apt/status" \
        -o Dir::Cache="$CACHE/apt" -o Dir::Cache::archives="$CACHE/apt/archives" \
        -o APT::Sandbox::User="$(id -un)" -o APT::Install-Recommends=false -o APT::Keep-Downloaded-Packages=true "$@"
}

# packages_of KIND: the names that the list has for closure, alone, newest or debian.
packages_of() { awk -v kind="$1" '$1 == kind { print $2 }' "$LAB/packages"; }

download_packages() {
    local name closure alone debian
    mkdir -p "$CACHE/apt/lists/partial" "$CACHE/apt/archives/partial"
    : >"$CACHE/apt/status"
    apt apt-get update >"$CACHE/apt/update.log" 2>&1 || {
        last_lines "$CACHE/apt/update.log"
        die "apt-get update failed" "the lab needs a Debian 12 package source; its log is $CACHE/apt/update.log"
    }
    apt apt-cache show xen-utils-4.17 >/dev/null 2>&1 ||
        die "apt knows no package xen-utils-4.17" "the lab is made for Debian 12 (bookworm): Xen 4.17 is part of it"
    mapfile -t closure < <(packages_of closure)
    mapfile -t alone < <(packages_of alone)
    mapfile -t debian < <(packages_of debian)
    for name in $(packages_of newest); do
        name=$(apt apt-cache depends "$name" | awk '$1 == "Depends:" { print $2; exit }')
        [ -n "$name" ] || die "apt knows no package that its newest kernel stands for" "is the package source complete?"
        alone+=("$name")
    done
    if ! {
        apt apt-get install -y --download-only "${closure[@]}" "${debian[@]}" &&
            (cd "$CACHE/apt/archives" && apt apt-get download "${alone[@]}")
    } >"$CACHE/apt/download.log" 2>&1; then
        last_lines "$CACHE/apt/download.log"
        die "the download of packages failed" "the whole log is $CACHE/apt/download.log"
    fi
}

unpack_packages() {
    local package
    rm -rf "$CACHE/root.new"
    mkdir -p "$CACHE/root.new"
    for package in "$CACHE"/apt/archives/*.deb; do
        dpkg-deb -x "$package" "$CACHE/root.new" || die "cannot unpack $package" "remove it and run again: it is downloaded anew"
    done
    unpack_debian
    rm -rf "$CACHE/root"
    mv "$CACHE/root.new" "$CACHE/root"
    # Unpacked, they are of no more use; Debian's mirrors keep them.
    rm -f "$CACHE"/apt/archives/*.deb
}

# tool NAME ARGUMENT...: runs a program of the unpacked root with that root's own libraries.
tool() {
    local program
    program=$(in_root "$1") || die "no $1 in the unpacked packages" "remove $CACHE and run again"
    shift
    "$ROOT/lib64/ld-linux-x86-64.so.2" --library-path "$LIBRARY_PATH" "$program" "$@"
}

# in_root NAME: the path of a program of the unpacked root.
in_root() {
    local folder
    # Xen's own folder first: in /usr/sbin stand wrappers that ask which Xen is running.
    for folder in usr/lib/xen-4.17/bin usr/bin usr/sbin bin sbin usr/libexec; do
        [ -x "$ROOT/$folder/$1" ] && { printf '%s\n' "$ROOT/$folder/$1"; return; }
    done
    return 1
}

# revision: of the code that is tested, with a + if the tree holds more than it.
revision() {
    local revision
    revision=$(git -C "$LAB" rev-parse --short HEAD 2>/dev/null) || revision=unknown
    [ -z "$(git -C "$LAB" status --porcelain 2>/dev/null)" ] || revision=$revision+
    printf '%s' "$revision"
}

ROOT=$CACHE/root
LIBRARY_PATH=$ROOT/lib/x86_64-linux-gnu:$ROOT/usr/lib/x86_64-linux-gnu:$ROOT/usr/lib/xen-4.17/lib/x86_64-linux-gnu

prepare_packages() {
    local wanted
    wanted=$(sha256sum <"$LAB/packages")
    if [ ! -d "$ROOT" ] || [ "$(cat "$CACHE/root.is" 2>/dev/null)" != "$wanted" ]; then
        say "packages: downloading (once; about 155 MB)"
        download_packages
        say "packages: unpacking"
        unpack_packages
        printf '%s\n' "$wanted" >"$CACHE/root.is"
    fi
    KERNEL=$(kernel_release)
}

kernel_release() { basename "$(echo "$ROOT"/lib/modules/*)"; }

# know_packages: what the cache holds, for this run and for its results.
know_packages() {
    KERNEL=$(kernel_release)
    QEMU_VERSION=$(tool qemu-system-x86_64 --version | sed -n '1s/^QEMU emulator version \([^ ]*\).*/\1/p')
    say "packages: Xen 4.17, Linux $KERNEL, QEMU $QEMU_VERSION"
    # With the results: figures without the versions that made them are worth little.
    printf 'linux %s\nqemu %s\nrevision %s\nday %s\n' "$KERNEL" "$QEMU_VERSION" "$(revision)" "$(date -u +%F)" >"$OUT/versions.txt"
}
