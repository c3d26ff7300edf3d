# shellcheck shell=sh
# front: our driver with the kernel's netback: connects, loses no ping, carries a file unharmed, counts what netback counts, grants nothing after its start.

# hypervisor_counter NAME WHEN: a total since the start, out of the statistics saved at that time.
hypervisor_counter() {
    tr -d '\n ' <"$RESULTS/stats-at-$2.json" | sed -n 's/.*"hypervisor":{[^}]*"'"$1"'":\([0-9]*\).*/\1/p'
}

guest_start
guest_must front_start
guest_must front_wait
stage "$SCENARIO: xn0 has carrier"
guest_must front_address
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2

guest_must front_stats >"$RESULTS/stats-at-start.json"
mappings=$(guest front_mappings)
check_at_least "regions of shared pages that the kernel sees" 1 "$mappings"
guest_must witness_start

traffic_both 64

guest_must front_stats >"$RESULTS/stats-at-end.json"
guest front_log >"$RESULTS/netfront.log"
granted=$(hypervisor_counter grants start)
check_at_least "grants that netfront counted until it was connected" 1 "$granted"
check "grants that netfront counted until the end" "$granted" "$(hypervisor_counter grants end)"
check "grants that netfront took back until the end" "$(hypervisor_counter revokes start)" "$(hypervisor_counter revokes end)"
check "regions of shared pages that the kernel sees, at the end" "$mappings" "$(guest front_mappings)"
check "grants that the guest's kernel made under load" 0 "$(guest witness_grants)"
check "grants that the guest's kernel took back under load" 0 "$(guest witness_revokes)"
saw "$granted grants at the start, 0 after"

# The kernel's backend counted the same packets as ours did, to the byte. At rest: what crosses between two
# looks would be in one of them only.
counters_agree() {
    guest_must front_stats >"$RESULTS/stats-at-rest.json"
    received=$(front_counter rx_packets)
    sent=$(front_counter tx_packets)
    # netback counts what the guest sent without its Ethernet header, which it has taken off by then.
    ours="$received $(front_counter rx_bytes) $sent $(($(front_counter tx_bytes) - 14 * sent))"
    netback=$(cd "/sys/class/net/$VIF/statistics" && cat tx_packets tx_bytes rx_packets rx_bytes | tr '\n' ' ')
    [ "$ours " = "$netback" ]
}
# front_counter NAME: out of the statistics at rest.
front_counter() {
    tr -d '\n ' <"$RESULTS/stats-at-rest.json" | sed -n 's/.*"counters":{[^}]*"'"$1"'":\([0-9]*\).*/\1/p'
}
tries=50
until counters_agree; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || fail "packets and bytes, in and out: ours $ours, netback's $netback"
    sleep 0.2
done
saw "$received packets in and $sent out, equal to netback's count to the byte"

guest_must front_stop
guest front_log >"$RESULTS/netfront.log"
