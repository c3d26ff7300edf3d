# shellcheck shell=sh
# save-restore: the guest is saved and restored while packets pass: the kernel's netfront first, then ours, twice, with other features each time; its addresses are announced, traffic goes on, no kernel breaks.

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

# listen ROUND: to what is said of addresses, on each interface, since the vif will be another one.
listen() {
    recording=$RESULTS/restore-$1.pcap
    tcpdump -i any -U -Z root -w "$recording" 'arp or icmp6' 2>"$RESULTS/tcpdump-$1.txt" &
    listener=$!
    within 10 "tcpdump listens" grep -q 'listening on' "$RESULTS/tcpdump-$1.txt"
}

# heard FILTER: there is such a packet.
heard() { [ "$(tcpdump -r "$recording" -Z root -n "$1" 2>/dev/null | wc -l)" -gt 0 ]; }

# announced ROUND: both addresses. In the ARP request sender and target are the same; nobody solicited the advertisement.
announced() {
    within 20 "a gratuitous ARP request (round $1)" heard 'arp[6:2] = 1 and arp[14:4] = 0x0a4d0002 and arp[24:4] = 0x0a4d0002'
    within 20 "an unsolicited neighbour advertisement (round $1)" \
        heard 'icmp6 and ip6[40] = 136 and ip6[44] & 0x40 = 0 and ip6[48:4] = 0xfd000077 and ip6[60:4] = 2'
    kill -INT "$listener" 2>/dev/null
    wait "$listener"
}

# there KEY: whether the frontend's folder has it.
there() { xenstore-exists "$NODE/device/vif/0/$1" && echo yes || echo no; }

# features ANSWER: whether scatter-gather, segments and two event channels are offered, and used.
features() {
    check "sg that netfront sees offered" "$1" "$(guest offered sg)"
    check "gso-tcpv4 that netfront sees offered" "$1" "$(guest offered gso-tcpv4)"
    check "event-channel-tx in the frontend's folder" "$1" "$(there event-channel-tx)"
    other=no
    [ "$1" = yes ] || other=yes
    check "event-channel in the frontend's folder" "$other" "$(there event-channel)"
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
guest_must 'ip addr add fd00:77::2/64 dev xn0'
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
features yes
# Until the kernel has made sure that nobody else has the IPv6 address.
sleep 3
guest_must pinging_start
for round in 1 2; do
    # The first backend after a restore offers less, the second one all again.
    rm -f /run/lab/offers
    [ "$round" = 2 ] ||
        printf '%s 0\n' feature-sg feature-gso-tcpv4 feature-gso-tcpv6 feature-split-event-channels >/run/lab/offers
    listen "$round"
    save_and_restore
    traffic_again "netfront, round $round"
    announced "$round"
    if [ "$round" = 1 ]; then features no; else features yes; fi
    saw "both addresses announced; features negotiated anew"
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
