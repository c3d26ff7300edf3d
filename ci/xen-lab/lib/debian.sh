# shellcheck shell=bash
# The guest that is a small Debian with systemd, for what an administrator does with the package.
#
# Debian's packages are unpacked and no maintainer script runs, so it needs no root. What the scripts would have made and
# somebody asks for is made here: users out of base-passwd's list, dpkg's records, what is enabled. It is an initramfs:
# the system in a folder `debian`, and busybox, which starts it from there (guest/debian/init).

# Nobody reads in this guest, and none of its hardware has an entry.
DEBIAN_WITHOUT=(
    './usr/share/doc' './usr/share/man' './usr/share/locale' './usr/share/info' './usr/share/lintian' './usr/share/bug'
    './usr/share/bash-completion' './usr/share/zsh' './usr/share/i18n' './usr/share/perl5' './usr/share/polkit-1'
    './usr/lib/x86_64-linux-gnu/gconv' './lib/udev/hwdb.d' './usr/lib/udev/hwdb.d' './usr/lib/locale' './usr/lib/systemd/catalog'
)
# Units of sysinit.target and multi-user.target that show this guest nothing and take its processor seconds.
DEBIAN_MASKED=(
    proc-sys-fs-binfmt_misc.automount dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-config.mount
    sys-kernel-tracing.mount sys-fs-fuse-connections.mount systemd-binfmt.service systemd-random-seed.service
    systemd-machine-id-commit.service systemd-update-done.service systemd-hwdb-update.service systemd-pcrphase.service
    systemd-pcrphase-sysinit.service systemd-journal-flush.service systemd-update-utmp.service
    systemd-update-utmp-runlevel.service systemd-user-sessions.service systemd-logind.service systemd-firstboot.service
    systemd-repart.service systemd-ask-password-console.path systemd-ask-password-wall.path systemd-tmpfiles-clean.timer
    fstrim.timer getty.target cryptsetup.target veritysetup.target integritysetup.target
)

# unpack_debian: the packages of the list, while they are there, with what dpkg keeps of each that is installed.
unpack_debian() {
    local tree=$CACHE/debian name folder
    rm -rf "$tree"
    mkdir -p "$tree"/usr/{bin,sbin,lib,lib64} "$tree"/var/lib/dpkg/{info,updates,triggers,alternatives}
    # As on every Debian 12; packages still have files in both.
    for folder in bin sbin lib lib64; do ln -s "usr/$folder" "$tree/$folder"; done
    : >"$tree/var/lib/dpkg/available"
    for name in $(packages_of debian); do
        unpack_debian_package "$tree" "$CACHE/apt/archives/${name}"_*.deb
    done
}

# unpack_debian_package TREE PACKAGE
unpack_debian_package() {
    local name without=("${DEBIAN_WITHOUT[@]/#/--exclude=}")
    [ -f "$2" ] || die "apt downloaded no package ${2##*/}" "remove $CACHE and run again"
    dpkg-deb --fsys-tarfile "$2" | tar -x -C "$1" --keep-directory-symlink --no-same-owner "${without[@]}" ||
        die "cannot unpack $2" "remove it and run again: it is downloaded anew"
    # The stanza as dpkg would have written it, and the list of files: a folder that stands in one dpkg takes for this
    # package's, and leaves it when ours goes.
    name=$(dpkg-deb -f "$2" Package)
    dpkg-deb -f "$2" | sed '/^Package:/a Status: install ok installed' >>"$1/var/lib/dpkg/status"
    echo >>"$1/var/lib/dpkg/status"
    [ "$(dpkg-deb -f "$2" Multi-Arch)" != same ] || name=$name:amd64
    dpkg-deb --fsys-tarfile "$2" | tar -t "${without[@]}" | sed 's|^\./|/|; s|/$||; s|^$|/.|' >"$1/var/lib/dpkg/info/$name.list"
}

# build_debian_base: what is the same in each run.
build_debian_base() {
    local image=$CACHE/base/debian tree=$CACHE/base/debian/debian unit
    mkdir -p "$image/bin"
    put_file "$image" "$ROOT/bin/busybox" /bin/busybox
    put_file "$image" "$LAB/guest/debian/init" /init
    chmod +x "$image/init"
    cp -a "$CACHE/debian" "$tree"
    mkdir -p "$tree"/{dev,proc,sys,run,tmp,root} "$tree"/var/{log,tmp} "$tree/etc/systemd/system/multi-user.target.wants"
    [ -e "$tree/var/run" ] || ln -s /run "$tree/var/run"
    # What a script would have set.
    ln -sf mawk "$tree/usr/bin/awk"
    ln -sf dash "$tree/usr/bin/sh"

    put_modules "$tree" xen-evtchn xen-gntalloc xen-gntdev xen-netfront tun
    # Its modprobe reads the index as a program reads it, which busybox' depmod does not write.
    "$ROOT/lib64/ld-linux-x86-64.so.2" --library-path "$LIBRARY_PATH" --argv0 depmod "$tree/usr/bin/kmod" -b "$tree" "$KERNEL" ||
        die "depmod for the Debian guest failed" "remove $CACHE and run again"
    put_program "$tree" iperf3 xenstore-{read,write,watch} libgcc_s.so.1
    put_debian_libraries "$tree"

    cp "$tree/usr/share/base-passwd/passwd.master" "$tree/etc/passwd"
    cp "$tree/usr/share/base-passwd/group.master" "$tree/etc/group"
    sed 's/^\([^:]*\):.*/\1:*:19000:0:99999:7:::/' "$tree/etc/passwd" >"$tree/etc/shadow"
    sed 's/^\([^:]*\):.*/\1:*::/' "$tree/etc/group" >"$tree/etc/gshadow"
    chmod 640 "$tree/etc/shadow" "$tree/etc/gshadow"
    printf 'passwd: files\ngroup: files\nshadow: files\ngshadow: files\nhosts: files\n' >"$tree/etc/nsswitch.conf"
    echo guest >"$tree/etc/hostname"
    # One that is there: without it systemd would enable all that Debian's packages bring.
    echo 7865bf3a6a0f4fd0a3c6a5b1f2d4e690 >"$tree/etc/machine-id"
    for unit in "${DEBIAN_MASKED[@]}"; do ln -sf /dev/null "$tree/etc/systemd/system/$unit"; done
    ln -s /lib/systemd/system/multi-user.target "$tree/etc/systemd/system/default.target"
    put_file "$tree" "$LAB/guest/debian/agent.service" /etc/systemd/system/agent.service
    put_file "$tree" "$LAB/guest/debian/journald.conf" /etc/systemd/journald.conf.d/lab.conf
    # Who gives the service's TAP its address, again after each restart: an administrator's usual way.
    put_file "$tree" "$LAB/guest/debian/xn0.network" /etc/systemd/network/xn0.network
    ln -s /etc/systemd/system/agent.service "$tree/etc/systemd/system/multi-user.target.wants/"
    ln -s /lib/systemd/system/systemd-networkd.service "$tree/etc/systemd/system/multi-user.target.wants/"
    pack "$image" "$CACHE/base/debian.img"
    rm -rf "$image"
}

# put_debian_libraries TREE: what the programs and libraries in it are linked to and its packages do not have.
put_debian_libraries() {
    local tree=$1 path=$LIBRARY_PATH file library
    path=$path:$ROOT/lib/x86_64-linux-gnu/systemd:$ROOT/usr/lib/x86_64-linux-gnu/systemd
    find "$tree/usr" -type f \( -perm -u+x -o -name '*.so*' \) | while read -r file; do
        "$ROOT/lib64/ld-linux-x86-64.so.2" --library-path "$path" --list "$file" 2>/dev/null || true
    done | { grep -oE "$ROOT/[^ ]+" || true; } | sort -u | while read -r library; do
        # In either of the folders that are one in the guest.
        [ -e "$tree${library#"$ROOT"}" ] || put_file "$tree" "$library" "${library#"$ROOT"}"
    done
}

# build_debian_image FILE: with this run's packages and scripts.
build_debian_image() {
    local own=$WORK/debian tree=$WORK/debian/debian file
    rm -rf "$own"
    mkdir -p "$tree/lab/scenarios"
    for file in agent.sh witness.sh kernel.sh; do put_file "$tree" "$LAB/guest/$file" "/lab/$file"; done
    put_scenarios "$tree" guest
    put_file "$tree" "$PACKAGE" /lab/packages/netfront.deb
    put_file "$tree" "$NEWER_PACKAGE" /lab/packages/newer.deb
    pack "$own" "$WORK/debian.own"
    cat "$CACHE/base/debian.img" "$WORK/debian.own" >"$1"
}
