# shellcheck shell=sh disable=SC2154 # some variables are talk.sh's
# starved: the kernel's netback finds no slot left in the receive ring of ours, which is paused: 20 times for a moment, for 20 s, and beyond the 60 s after which netback takes the carrier away; each time the ring is filled again, netback is told so, and no ping after it is lost.
# guests: pv
# part: features
# deadline: 600

ROUNDS=20
# Datagrams of a burst, of a slot each: the ring has 256, and netback's own queue holds 512 KiB. The others wait before its interface.
BURST=2000
SIZE=1400
# What netback 6.1 is built with: packets wait this long for a slot, and without one for so long the guest is taken to be stalled.
DRAIN=10
STALL=60

# slots_left: those that netback has not used yet, as it says itself.
slots_left() { awk '$1 == "RX:" { rx = 1 } rx && $1 == "req" { print $3 - $6; exit }' "/sys/kernel/debug/xen-netback/$VIF/io_ring_q0"; }
is_empty() { [ "$(slots_left)" = 0 ]; }
has_slots() { [ "$(slots_left)" -ge "$1" ]; }

# Without a port that answers; not a connected socket, which would end with the first error that comes back.
burst() {
    timeout 30 socat -u -b "$SIZE" OPEN:/tmp/burst "UDP4-SENDTO:10.77.0.2:9,sndbuf=4194304" >"$RESULTS/socat.txt" 2>&1 ||
        fail "the burst: $(tail -n 1 "$RESULTS/socat.txt")"
}

# starve: the driver leaves the ring alone, and dom0 fills it. The last datagrams of a burst may still be on their way through the bridge.
starve() {
    guest_must "netfront pause --vif 0 >/dev/null"
    burst
    within 10 "netback has no slot left" is_empty
}

# fed WHEN: the ring is filled again, and pings pass both ways.
fed() {
    guest_must "netfront resume --vif 0 >/dev/null"
    within 10 "netback has slots again, $1" has_slots 200
    check "pings answered, $1" 3 "$(ping -c 3 -i 0.2 -W 5 10.77.0.2 | pings_answered)"
}

# at_vif NAME: netback's own count.
at_vif() { cat "/sys/class/net/$VIF/statistics/$1"; }
changes() { cat "/sys/class/net/$VIF/carrier_changes"; }
has_carrier() { [ "$(cat "/sys/class/net/$VIF/carrier")" = "$1" ]; }

# received_what_was_sent: what netback put into the ring came out of it, all and nothing else. At rest.
received_what_was_sent() { received=$(guest front_number rx_packets) && [ "$received" = "$(at_vif tx_packets)" ]; }

guest_start
guest_must front_start
guest_must front_wait
guest_must front_address
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
[ -d /sys/kernel/debug/xen-netback ] || mount -t debugfs debugfs /sys/kernel/debug || fail "no debugfs"
check "what netback waits for a slot, ms" "$((DRAIN * 1000)) $((STALL * 1000))" \
    "$(cat /sys/module/xen_netback/parameters/rx_drain_timeout_msecs) $(cat /sys/module/xen_netback/parameters/rx_stall_timeout_msecs)"
# netback looks for a stalled guest only if that says that it rings.
check "feature-rx-notify of ours" 1 "$(xenstore-read "$NODE/device/vif/0/feature-rx-notify")"
check_at_least "slots of a ring that nobody has starved" 200 "$(slots_left)"
dd if=/dev/zero of=/tmp/burst bs="$SIZE" count="$BURST" 2>/dev/null
# A guest that answers no ARP for a while would get no datagram either.
arp -s 10.77.0.2 00:16:3e:00:00:02 || fail "arp -s"
kernel_log_from_here
before=$(changes)

round=0
while [ "$round" -lt "$ROUNDS" ]; do
    round=$((round + 1))
    starve
    fed "after pause $round"
done
emptied=$(guest front_number rx_ring_empty)
check_at_least "times that ours found all slots filled (rx_ring_empty)" "$ROUNDS" "$emptied"
within 10 "ours received what netback put into the ring" received_what_was_sent
passed=$(guest front_number rx_packets)
check_at_least "packets that passed in $ROUNDS pauses" $((ROUNDS * 256)) "$passed"
check "times that the pool was short (rx_starved)" 0 "$(guest front_number rx_starved)"
saw "$ROUNDS pauses under $BURST datagrams: no slot left, filled again each time, 3 of 3 pings after each; $passed packets, as many as netback put into the ring; rx_ring_empty $emptied"
stage "$SCENARIO: short pauses"

# Longer than netback keeps a packet, and not yet as long as it waits for the guest.
starve
sleep $((DRAIN * 2))
check "slots left at the end of a long pause" 0 "$(slots_left)"
burst
fed "after $((DRAIN * 2)) s"
check "changes of the vif's carrier in pauses of up to $((DRAIN * 2)) s" 0 $(($(changes) - before))
saw "a pause of $((DRAIN * 2)) s: the vif's carrier stays, $(at_vif rx_dropped) packets were too old for netback, then 3 of 3 pings"
stage "$SCENARIO: a long pause"

# Longer than that: netback takes the carrier away when the next packet comes, and gives it back by itself.
starve
sleep $((STALL + 2))
burst
within 10 "netback has taken the carrier away" has_carrier 0
guest_must "netfront resume --vif 0 >/dev/null"
within 10 "netback has given the carrier back" has_carrier 1
within 10 "netback has slots again" has_slots 200
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
check "changes of the vif's carrier" 2 $(($(changes) - before))
saw "a pause of $((STALL + 2)) s: netback says '$(dmesg | sed -n 's/.*\(Guest Rx stalled\).*/\1/p' | head -n 1)', and '$(dmesg | sed -n 's/.*\(Guest Rx ready\).*/\1/p' | head -n 1)' when ours goes on"
ping_both 20
within 10 "ours received what netback put into the ring" received_what_was_sent
dropped=$(guest front_numbers rx_drop_beyond_page rx_drop_size_mismatch rx_drop_chain_cut engine_dropped)
check "packets that ours dropped" "0 0 0 0" "$dropped"
guest front_stats >"$RESULTS/stats.json"
guest front_log >"$RESULTS/netfront.log"
guest_must front_stop
