# shellcheck shell=sh
# What runs scenarios in dom0: the lines to the host, one scenario with its deadline, the results disk.

# The second serial port; Xen and dom0 write to the first.
TELL=/dev/ttyS1
# shellcheck source=/dev/null
. /lab/settings

# Seconds since dom0 started.
now() { read -r up _ </proc/uptime && echo "${up%.*}"; }

tell() { printf '%s\n' "$*" >"$TELL"; }
stage() { tell "stage $*"; echo "lab: $*"; }

# fatal WHAT: nothing can run; the host sees the machine stop and shows the console.
fatal() {
    stage "dom0: $*"
    [ "$SHELL_WANTED" = no ] || exec setsid cttyhack sh
    sleep 1
    poweroff -f
}

# run_scenario NAME: again, if the emulated processor killed the guest. What the earlier attempts left is kept.
run_scenario() {
    name=$1
    folder=/results/$name
    began=$(now)
    for attempt in 1 2 3; do
        # Only where a difference would be asked for: xl takes an emulated processor a second.
        [ "$GUEST" = pv ] || faults=$(triple_faults)
        mkdir -p "$folder"
        stage "$name: started"
        attempt_scenario
        if [ "$verdict" = passed ] || [ "$attempt" = 3 ] || ! emulator_failed; then
            break
        fi
        stage "$name: the emulated processor ended in a triple fault; once more"
        mv "$folder" "$folder.attempt-$attempt"
    done
    took=$(($(now) - began))
    if [ "$verdict" = passed ]; then
        seen=$(tr '\n' ';' <"$folder/seen" 2>/dev/null | sed 's/;$//; s/;/; /g')
        [ "$attempt" = 1 ] || seen="attempt $attempt, after triple faults of the emulated processor; $seen"
    else
        seen=$(head -n 1 "$folder/failed")
    fi
    stage "$name: $verdict"
    tell "result $name $verdict $took $seen"
}

# triple_faults: of guests, since Xen started.
triple_faults() { xl dmesg 2>/dev/null | grep -c 'Triple fault'; }

# emulator_failed: Xen saw a triple fault in this attempt, and the guest's kernel died without a word of complaint, so
# it is QEMU's emulation of SVM: a guest that idles is gone at its next interrupt, whatever runs in it. Seen in PVH
# guests, about once in twenty; a PV guest has no such excuse.
emulator_failed() {
    [ "$GUEST" != pv ] && [ "$(triple_faults)" -gt "$faults" ] &&
        ! grep -qE 'Kernel panic|BUG:|kernel BUG|Oops' "$folder/guest-console.txt" 2>/dev/null
}

# attempt_scenario: its script in a process group of its own, with a deadline, which a long one may have set itself; then what
# it leaves behind.
attempt_scenario() {
    started=$(now)
    patience=$(sed -n 's/^# deadline: //p' "/lab/scenarios/$name.dom0.sh")
    [ "${patience:-0}" -gt "$SCENARIO_DEADLINE" ] || patience=$SCENARIO_DEADLINE
    SCENARIO=$name setsid sh /lab/scenario.sh >"$folder/log.txt" 2>&1 </dev/null &
    script=$!
    while kill -0 "$script" 2>/dev/null && [ $(($(now) - started)) -lt "$patience" ]; do
        sleep 0.5
    done
    if kill -0 "$script" 2>/dev/null; then
        kill -KILL "-$script" 2>/dev/null
        echo "not done within its $patience s; its last line: $(tail -n 1 "$folder/log.txt")" >"$folder/failed"
        verdict=failed
    elif wait "$script" && [ ! -s "$folder/failed" ]; then
        verdict=passed
    else
        [ -s "$folder/failed" ] || echo "its script ended early; its last line: $(tail -n 1 "$folder/log.txt")" >"$folder/failed"
        verdict=failed
    fi
    # What it left in the background would act on the next one.
    kill -KILL "-$script" 2>/dev/null
    collect "$folder"
}

# collect FOLDER: what a person wants to see when a scenario failed, and an end to the guest.
collect() {
    rm -f /run/lab/offers
    # What a scenario that failed left to the next one.
    ip link del xenbr0.5 2>/dev/null
    ip link set xenbr0 mtu 1500
    killall tcpdump httpd netback-sim nc socat iperf3 ping 2>/dev/null
    dmesg >"$1/dom0-dmesg.txt"
    if [ "$verdict" = failed ]; then
        timeout 10 xl list >"$1/xl-list.txt" 2>&1
        timeout 10 xenstore-ls -f >"$1/xenstore.txt" 2>&1
        timeout 10 xl dmesg >"$1/xl-dmesg.txt" 2>&1
    fi
    # A scenario may have ended without one.
    timeout 30 xl destroy guest >/dev/null 2>&1
    # A scenario may have taken the kernel's backend away; the next one finds it again.
    modprobe xen-netback || stage "dom0: the kernel's netback cannot be loaded again"
    mv /var/log/xen/console/guest-guest.log "$1/guest-console.txt" 2>/dev/null
    cp /var/log/xen/*.log "$1/" 2>/dev/null
}

# disk MEBIBYTES: the disk of that size. The kernel finds the two in either order.
disk() {
    for folder in /sys/block/sd*; do
        [ "$(cat "$folder/size" 2>/dev/null)" != $(($1 * 2048)) ] || echo "/dev/${folder##*/}"
    done
}

# The disk carries one tar archive from its first byte.
save_results() {
    if ! tar -C /results -cf "$(disk 256)" . || ! sync; then
        stage "dom0: the results cannot be written to the disk"
    fi
}
