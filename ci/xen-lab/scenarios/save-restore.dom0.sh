# shellcheck shell=sh
# save-restore: the guest is saved and restored while packets pass: the kernel's netfront first, then ours, twice; traffic goes on, no kernel breaks.

# save_and_restore: the guest goes to the disk and comes back, as a rule with another number.
save_and_restore() {
    old=$DOMID
    xl save "$GUEST_NAME" "$SAVED" >"$RESULTS/xl-save.txt" 2>&1 || fail "xl save: $(tail -n 1 "$RESULTS/xl-save.txt")"
    stage "$SCENARIO: saved"
    xl restore "$SAVED" >"$RESULTS/xl-restore.txt" 2>&1 || fail "xl restore: $(tail -n 1 "$RESULTS/xl-restore.txt")"
    guest_moved
    stage "$SCENARIO: restored (domain $old is $DOMID now)"
}

# traffic_again WHO: pings pass again, both ways, and the guest's own clock says how long they did not.
traffic_again() {
    within 60 "the guest answers after the restore ($1)" ping -c 1 -W 1 10.77.0.2
    ping_both 5
    gap=$(guest pinging_gap)
    check_at_least "tenths of a second without an answer, by the guest's clock ($1)" 1 "$gap"
    [ "$gap" -le 100 ] || fail "$1: no traffic for $gap tenths of a second of guest time, wanted at most 100"
    saw "$1: domain $old is $DOMID, traffic after $((gap / 10)).$((gap % 10)) s of guest time"
}

# restores WHEN: as counted by netfront, out of the statistics saved at that time.
restores() { sed -n 's/^  "restores": \([0-9]*\).*/\1/p' "$RESULTS/stats-$1.json"; }

# unharmed WHO: nothing in the guest's log that a kernel says of its own bugs.
unharmed() {
    guest dmesg >"$RESULTS/dmesg-$1.txt"
    check "bugs and warnings in the guest's log ($1)" 0 "$(grep -cE 'BUG|WARNING|Oops|Call Trace|general protection' "$RESULTS/dmesg-$1.txt")"
    guest cat /proc/interrupts >"$RESULTS/interrupts-$1.txt"
}

guest_start
guest_must kernel_start
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
guest_must pinging_start
save_and_restore
traffic_again "kernel's netfront"
unharmed kernel
xl destroy "$GUEST_NAME" || fail "xl destroy"

guest_start
guest_must front_start
guest_must front_wait
guest_must front_address
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
guest_must pinging_start
for round in 1 2; do
    save_and_restore
    traffic_again "netfront, round $round"
    guest front_log >"$RESULTS/netfront.log"
    guest_must front_stats >"$RESULTS/stats-$round.json"
    check "restores that netfront counted" "$round" "$(restores "$round")"
    # The queue's, and that of the control ring, which the kernel's backend has too.
    check "handles that were parked so far" $((2 * round)) "$(guest "front_log | grep -c 'is parked with process'")"
    parked=$(guest keepers)
    check "processes that keep them, for all handles and restores" 1 "$parked"
    unharmed "netfront-$round"
done
# A checkpoint: the guest is saved and goes on as it is, with all its event channels. Nothing must be made anew.
old=$DOMID
xl save -c "$GUEST_NAME" "$SAVED" >"$RESULTS/xl-save-c.txt" 2>&1 || fail "xl save -c: $(tail -n 1 "$RESULTS/xl-save-c.txt")"
traffic_again "netfront, a checkpoint"
guest_must front_stats >"$RESULTS/stats-checkpoint.json"
check "restores that netfront counted after a checkpoint" 2 "$(restores checkpoint)"
tcp_both 3
guest_must pinging_stop
guest_must front_stop
guest front_log >"$RESULTS/netfront.log"
check "processes that keep handles after the end of netfront" 1 "$(guest keepers)"
unharmed stopped
# The interrupt of the handle that was closed in order is gone; those of parked ones keep their name.
check "interrupts with a name that is none" 0 "$(LC_ALL=C grep -c '[^ -~]' "$RESULTS/interrupts-stopped.txt")"
saw "4 handles parked with $parked process, no bug or warning in the guest's log"
