# shellcheck shell=bash
# What is inside the images: dom0 with Xen's tools, and the guest. The guest that is a Debian: debian.sh.

# The parts that never change between runs, kept in the cache.
prepare_base_images() {
    local stamp tree file
    stamp=$(cat "$CACHE/root.is" "$LAB"/lib/{packages,debian,image,images}.sh "$LAB"/guest/debian/* | sha256sum)
    [ "$(cat "$CACHE/base.is" 2>/dev/null)" != "$stamp" ] || return 0
    say "images: building the constant parts (once)"
    rm -rf "$CACHE/base.is" "$CACHE/base" && mkdir -p "$CACHE/base"

    tree=$CACHE/base/guest
    put_busybox "$tree"
    put_modules "$tree" xenfs xen-evtchn xen-gntalloc xen-gntdev xen-privcmd xen-netfront tun veth 8021q
    put_program "$tree" iperf3 xenstore-{read,write,watch,list,ls,rm}
    # What a program of ours loads at run time; its dependencies come with them.
    put_program "$tree" libxengnttab.so.1 libxenevtchn.so.1 libxenstore.so.4 libgcc_s.so.1
    pack "$tree" "$CACHE/base/guest.img"

    tree=$CACHE/base/dom0
    put_busybox "$tree"
    put_modules "$tree" xenfs xen-evtchn xen-gntalloc xen-gntdev xen-privcmd xen-netback bridge tun veth 8021q ata_piix sd_mod
    # xl needs libgcc_s.so.1 although it is not linked to it: the C library loads it when a thread is cancelled.
    put_program "$tree" xl xenstored xenconsoled xenconsole xen-init-dom0 libxl-save-helper libgcc_s.so.1
    put_program "$tree" iperf3 tcpdump socat xenstore-{read,write,watch,list,ls,rm,chmod,exists}
    put_program "$tree" libxengnttab.so.1 libxenevtchn.so.1 libxenstore.so.4 libxenctrl.so.4.17
    mkdir -p "$tree"/var/lib/{xen,xenstored} "$tree"/var/log/xen/console "$tree/etc/xen"
    : >"$tree/etc/xen/xl.conf"
    pack "$tree" "$CACHE/base/dom0.img"

    # What only an HVM guest needs in dom0, in an image of its own: it would take memory from the others.
    tree=$CACHE/base/device-model
    put_program "$tree" xen-qemu-system-i386
    put_file "$tree" "$ROOT/usr/lib/xen-4.17/boot/hvmloader" /usr/lib/xen-4.17/boot/hvmloader
    put_file "$tree" "$ROOT/usr/share/seabios/bios-256k.bin" /usr/share/seabios/bios-256k.bin
    # It does not start without a keyboard map, although nobody types.
    for file in linuxboot.bin linuxboot_dma.bin multiboot.bin multiboot_dma.bin pvh.bin kvmvapic.bin keymaps/en-us; do
        put_file "$tree" "$ROOT/usr/share/qemu/$file" "/usr/share/qemu/$file"
    done
    pack "$tree" "$CACHE/base/device-model.img"

    build_debian_base

    gzip -dc "$ROOT/boot/xen-4.17-amd64.gz" >"$CACHE/base/xen.elf"
    unpack_kernel "$ROOT/boot/vmlinuz-$KERNEL" "$CACHE/base/vmlinux"
    rm -rf "$CACHE"/base/{guest,dom0,device-model}
    printf '%s\n' "$stamp" >"$CACHE/base.is"
}

# unpack_kernel BZIMAGE FILE: the kernel's ELF file out of it, which saves an emulated processor from unpacking it, once
# for dom0 and once for each guest that xl builds. Where it lies: "payload_offset" in Linux' Documentation/arch/x86/boot.rst.
unpack_kernel() {
    local sectors offset length
    sectors=$(od -An -tu1 -j $((0x1f1)) -N 1 "$1")
    offset=$(od -An -tu4 -j $((0x248)) -N 4 "$1")
    length=$(od -An -tu4 -j $((0x24c)) -N 4 "$1")
    # Behind the compressed data stands its length, of which xz complains after its work is done.
    tail -c "+$(((sectors + 1) * 512 + offset + 1))" "$1" | head -c "$((length))" | tool xz -dc >"$2" 2>/dev/null || true
    [ "$(head -c 4 "$2" | tail -c 3)" = ELF ] || die "no ELF file in $1" "found $(wc -c <"$2") bytes; is the kernel packed in another way than with xz?"
}

# put_scenarios TREE SIDE: the lab's own, which those of another folder may source, and then theirs.
put_scenarios() {
    cp "$LAB"/scenarios/*."$2.sh" "$1/lab/scenarios/"
    [ "$SCENARIO_FOLDER" = "$LAB/scenarios" ] || cp "$SCENARIO_FOLDER"/*."$2.sh" "$1/lab/scenarios/"
}

# snapshot: whether the guest boots once for all scenarios. For one alone it is of no use, and less like a guest's life.
snapshot() {
    local scenario guests=0
    for scenario in "${SCENARIOS[@]}"; do
        [ ! -f "$SCENARIO_FOLDER/$scenario.guest.sh" ] || guests=$((guests + 1))
    done
    if [ "$BOOTS_ONCE" = yes ] && [ "$guests" -gt 1 ]; then echo yes; else echo no; fi
}

# The parts of this run: scripts, scenarios, the guest's configuration, the programs under test.
build_images() {
    local guest=$WORK/guest dom0=$WORK/dom0 scenario file parts
    rm -rf "$guest" "$dom0"
    mkdir -p "$guest/lab/scenarios" "$dom0/lab/scenarios" "$dom0/lab/guests" "$dom0/boot" "$dom0/etc/xen/scripts"

    put_file "$guest" "$LAB/guest/guest.init" /init
    for file in agent.sh witness.sh kernel.sh far.sh offload.sh; do put_file "$guest" "$LAB/guest/$file" "/lab/$file"; done
    put_scenarios "$guest" guest
    put_netfront "$guest"
    put_guest_programs "$guest"
    chmod +x "$guest/init"
    pack "$guest" "$WORK/guest.own"
    cat "$CACHE/base/guest.img" "$WORK/guest.own" >"$WORK/guest.img"
    if [ "$DEVICE_MODEL" = yes ]; then
        # The device model hands kernel and ramdisk to the guest byte by byte, through an I/O port: 50 MB take minutes.
        gzip -9c "$WORK/guest.img" >"$WORK/guest.gz" && mv "$WORK/guest.gz" "$WORK/guest.img"
    fi

    put_file "$dom0" "$LAB/guest/dom0.init" /init
    for file in lab.sh talk.sh measure.sh capture.sh kernel.sh backend.sh netback.sh steps.sh far.sh offload.sh offloads.sh scenario.sh profile.sh hello; do put_file "$dom0" "$LAB/guest/$file" "/lab/$file"; done
    put_file "$dom0" "$LAB/guest/vif-lab" /etc/xen/scripts/vif-lab
    put_scenarios "$dom0" dom0
    cp "$LAB"/guests/*.cfg "$dom0/lab/guests/"
    put_netfront "$dom0"
    put_netback_sim "$dom0"
    put_extra_programs "$dom0"
    {
        # shellcheck disable=SC2153 # set in run
        printf 'GUEST=%s\n' "$GUEST"
        printf 'SHELL_WANTED=%s\n' "$SHELL_WANTED"
        printf 'SCENARIO_DEADLINE=%s\n' "$SCENARIO_DEADLINE"
        printf 'BOOT_DEADLINE=%s\n' "$BOOT_DEADLINE"
        printf 'SNAPSHOT=%s\n' "$(snapshot)"
        [ ${#VARIABLES[@]} -eq 0 ] || printf '%s\n' "${VARIABLES[@]}"
    } >"$dom0/lab/settings"
    for scenario in "${SCENARIOS[@]}"; do printf '%s\n' "$scenario"; done >"$dom0/lab/plan"
    if [ "$DEVICE_MODEL" = yes ]; then
        # hvmloader's way is that of a boot loader: it takes the packed kernel only.
        cp "$ROOT/boot/vmlinuz-$KERNEL" "$dom0/boot/vmlinuz"
    else
        cp "$CACHE/base/vmlinux" "$dom0/boot/vmlinux"
    fi
    cp "$WORK/guest.img" "$dom0/boot/guest.img"
    # Large, and in dom0's memory: only for a scenario that starts it.
    if debian_wanted; then build_debian_image "$dom0/boot/debian.img"; fi
    chmod +x "$dom0/init" "$dom0/etc/xen/scripts/vif-lab"
    pack "$dom0" "$WORK/dom0.own"
    parts=("$CACHE/base/dom0.img")
    [ "$DEVICE_MODEL" = no ] || parts+=("$CACHE/base/device-model.img")
    cat "${parts[@]}" "$WORK/dom0.own" >"$WORK/dom0.img"
}
