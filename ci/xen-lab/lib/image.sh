# shellcheck shell=bash
# How an initramfs is put together: a tree of files, then one archive.
#
# The kernel unpacks several archives that follow each other in one file, the later over the earlier. So
# the large and constant part (base) is built once, and a run only adds its own small one. They are not
# compressed: unpacking takes an emulated processor longer than reading, and xl complains of such a chain.

# put_file TREE FILE PATH: copies FILE to PATH inside TREE.
put_file() {
    mkdir -p "$1$(dirname "$3")"
    cp -L "$2" "$1$3"
}

# put_program TREE NAME...: a program or library of the unpacked packages at its own path, with the libraries it links to.
put_program() {
    local tree=$1 name file library
    shift
    for name in "$@"; do
        file=$(in_root "$name") || file=$(library_in_root "$name") || die "no $name in the unpacked packages" "remove $CACHE and run again"
        put_file "$tree" "$file" "${file#"$ROOT"}"
        while read -r library; do
            [ -e "$tree${library#"$ROOT"}" ] || put_file "$tree" "$library" "${library#"$ROOT"}"
        done < <("$ROOT/lib64/ld-linux-x86-64.so.2" --library-path "$LIBRARY_PATH" --list "$file" 2>/dev/null |
            grep -oE "$ROOT/[^ ]+")
    done
    mkdir -p "$tree/lib64"
    [ -e "$tree/lib64/ld-linux-x86-64.so.2" ] || put_file "$tree" "$ROOT/lib64/ld-linux-x86-64.so.2" /lib64/ld-linux-x86-64.so.2
}

# library_in_root NAME: the path of a library of the unpacked packages.
library_in_root() {
    local folder
    for folder in ${LIBRARY_PATH//:/ }; do
        [ -e "$folder/$1" ] && { printf '%s\n' "$folder/$1"; return; }
    done
    return 1
}

# put_host_program TREE FILE PATH: a program that was built here, at PATH, with the libraries that the image does not have yet.
put_host_program() {
    local tree=$1 library
    put_file "$tree" "$2" "$3"
    chmod +x "$tree$3"
    # Debug information and symbols are four fifths of a program, and each byte of an image has to be carried into the guest.
    ! command -v strip >/dev/null || strip --strip-all "$tree$3"
    while read -r library; do
        # The base image has libc and its kin from Debian 12; a second libc of the host would not fit its loader.
        library_in_root "$(basename "$library")" >/dev/null || put_file "$tree" "$library" "/usr/lib/$(basename "$library")"
    done < <(ldd "$2" 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $3 }')
}

# put_modules TREE NAME...: kernel modules with all that they depend on.
put_modules() {
    local tree=$1 from=$ROOT/lib/modules/$KERNEL to=$1/lib/modules/$KERNEL name file
    shift
    [ -s "$from/modules.dep" ] || "$ROOT/bin/busybox" depmod -b "$ROOT" "$KERNEL"
    mkdir -p "$to"
    for name in "$@"; do
        grep -qE "/$name\.ko:" "$from/modules.dep" || die "Linux $KERNEL has no module $name" "is it built in, or renamed?"
        for file in $(grep -E "/$name\.ko:" "$from/modules.dep" | tr -d :); do
            mkdir -p "$to/$(dirname "$file")"
            cp -n "$from/$file" "$to/$file"
        done
    done
    cp "$from"/modules.{order,builtin,builtin.modinfo} "$to/"
    "$ROOT/bin/busybox" depmod -b "$tree" "$KERNEL"
}

# put_busybox TREE: the empty folders of a system, and busybox under all its names.
put_busybox() {
    local tree=$1 name
    mkdir -p "$tree"/{bin,sbin,dev,proc,sys,run,tmp,etc,root,lib64,usr/bin,usr/sbin,var/log,var/lib}
    ln -s /run "$tree/var/run"
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$tree/etc/passwd"
    printf 'root:x:0:\n' >"$tree/etc/group"
    put_file "$tree" "$ROOT/bin/busybox" /bin/busybox
    for name in $("$ROOT/bin/busybox" --list); do
        # busybox lists itself; linked to itself it could not be started.
        [ "$name" = busybox ] || ln -sf busybox "$tree/bin/$name"
    done
}

# pack TREE FILE: the tree as one archive, in which root has everything, whoever runs the lab.
pack() {
    (cd "$1" && find . | "$ROOT/bin/busybox" cpio -o -H newc -R 0:0 2>/dev/null) >"$2"
}
