# shellcheck shell=bash
# The machine: QEMU with Xen, dom0 and the results disk; and the watch over it until it is done or late.
#
# com1 is the console of Xen and dom0. com2 carries only the lab's own lines (stage, result, done), so
# that no kernel message can cut one in two. Files come out as a tar archive on a raw disk;
# a second one takes a guest that a scenario saves, a third one the guest that all scenarios start from.

QEMU=
# QEMU loads its accelerator and disk drivers at run time, out of the unpacked packages.
export QEMU_MODULE_DIR=$CACHE/root/usr/lib/x86_64-linux-gnu/qemu

stop_qemu() {
    [ -n "$QEMU" ] || return 0
    kill "$QEMU" 2>/dev/null || true
    wait "$QEMU" 2>/dev/null || true
    QEMU=
}

# qemu_arguments: fills the array ARGUMENTS from the guest's settings.
qemu_arguments() {
    local xen="console=com1 com1=115200,8n1 dom0_mem=$DOM0_MEMORY,max:$DOM0_MEMORY dom0_max_vcpus=1"
    # With credit2 two busy domains on an emulated machine starve each other for seconds.
    xen="$xen sched=credit noreboot=1 loglvl=warning guest_loglvl=warning ${XEN_LAB_XEN_ARGUMENTS:-}"
    # shellcheck disable=SC2054 # the commas belong to QEMU
    local clock=(-accel "tcg,thread=multi" -cpu "$CPU" -smp "${PROCESSORS:-2}")
    if [ "$VIRTUAL_TIME" = yes ]; then
        # The machine's clock counts its instructions, 2^0 ns each, and jumps over idle time. One processor: with two
        # the clock counts those of both, and Xen would charge a domain for time in which the other one is emulated.
        # Without erms and fsrm nobody copies by `rep movsb`, of which each byte would count as an instruction.
        # shellcheck disable=SC2054
        clock=(-accel "tcg,thread=single" -icount "shift=0,sleep=off,align=off" -smp "${PROCESSORS:-1}"
            -cpu "$CPU,-erms,-fsrm")
    fi
    ARGUMENTS=("${clock[@]}" -m "$MEMORY"
        -nodefaults -no-reboot -display none -L "$ROOT/usr/share/qemu" -L "$ROOT/usr/share/seabios"
        -drive "file=$WORK/results.disk,format=raw,if=ide" -drive "file=$WORK/saved.disk,format=raw,if=ide"
        -drive "file=$WORK/snapshot.disk,format=raw,if=ide"
        -kernel "$CACHE/base/xen.elf" -append "$xen"
        -initrd "$CACHE/base/vmlinux console=hvc0 quiet ${XEN_LAB_DOM0_ARGUMENTS:-},$WORK/dom0.img")
}

boot_for_a_person() {
    qemu_arguments
    say "dom0 comes up on this terminal; Ctrl-A then X ends the machine, so does 'poweroff -f'"
    tool qemu-system-x86_64 "${ARGUMENTS[@]}" -serial mon:stdio -serial "file:$OUT/progress.log"
}

# boot: runs the machine until it says that it is done; non-zero when it did not.
boot() {
    local began now line seen=0
    qemu_arguments
    : >"$OUT/progress.log"
    : >"$OUT/console.log"
    began=$(date +%s)
    tool_in_background qemu-system-x86_64 "${ARGUMENTS[@]}" -serial "file:$OUT/console.log" -serial "file:$OUT/progress.log"
    while :; do
        # A line that is still being written has no end yet: read leaves it for the next time.
        while IFS= read -r line; do
            seen=$((seen + 1))
            show_progress "$line"
        done < <(tail -n "+$((seen + 1))" "$OUT/progress.log" | tr -d '\r')
        if grep -q '^done' "$OUT/progress.log"; then
            finish_boot
            return 0
        fi
        now=$(($(date +%s) - began))
        if ! kill -0 "$QEMU" 2>/dev/null; then
            boot_failed "the machine stopped after $now s, before it was done"
            return 1
        elif grep -aqE 'Panic on CPU|Domain 0 crashed|Kernel panic - not syncing' "$OUT/console.log"; then
            boot_failed "Xen or dom0 crashed after $now s"
            return 1
        elif [ "$now" -ge "$DEADLINE" ]; then
            boot_failed "the machine was not done within its $DEADLINE s (XEN_LAB_DEADLINE gives it more)"
            return 1
        fi
        sleep 0.5
    done
}

tool_in_background() {
    local program
    program=$(in_root "$1")
    shift
    # The timeout is for the day when this script itself is killed: no machine may stay behind and eat the processors.
    timeout -k 5 $((DEADLINE + 60)) "$ROOT/lib64/ld-linux-x86-64.so.2" --library-path "$LIBRARY_PATH" "$program" "$@" \
        >"$OUT/qemu.log" 2>&1 </dev/null &
    QEMU=$!
}

show_progress() {
    case $1 in
        stage\ *) say "${1#stage }" ;;
        *) ;; # results are printed together at the end
    esac
}

# Everything is on the disk by now; a machine that does not go off by itself costs no result.
finish_boot() {
    local left=20
    while kill -0 "$QEMU" 2>/dev/null && [ "$left" -gt 0 ]; do
        sleep 0.5
        left=$((left - 1))
    done
    stop_qemu
}

boot_failed() {
    stop_qemu
    printf 'xen-lab: %s\n' "$1" >&2
    last_lines "$OUT/qemu.log" "$OUT/progress.log" "$OUT/console.log" >&2
}
