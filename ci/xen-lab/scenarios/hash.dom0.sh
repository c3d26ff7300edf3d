# shellcheck shell=sh
# hash: the kernel's netback hashes what it sends, as our driver asks it over the control ring: flows come by the queue that the mapping names, each packet with its hash, those of Microsoft's verification suite are right, and the next driver gets none that it did not ask for.
# guests: pv
# part: features

# many_connections: 32 of TCP to the guest: netback takes a hash over ports for these only, and all datagrams between two
# addresses have one hash.
many_connections() {
    timeout 90 iperf3 -c 10.77.0.2 -P 32 -n 32K >"$RESULTS/connections.txt" 2>&1 ||
        fail "32 connections to the guest: $(tail -n 1 "$RESULTS/connections.txt")"
}

# start OPTION...: our driver, with the kernel's route to it known.
start() {
    guest_must hash_front "$@"
    within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
}

# steers QUEUE MAPPING: with that mapping every packet comes by that queue, and none by the other.
steers() {
    start --hash-mapping "$2"
    before=$(guest front_each rx_packets)
    many_connections
    ping -c 3 -i 0.1 10.77.0.2 >/dev/null
    after=$(guest front_each rx_packets)
    # shellcheck disable=SC2086 # words: two queues before, two after
    set -- "$1" "$2" $before $after
    check "queues that are counted" 6 $#
    [ "$1" = 0 ] || set -- "$1" "$2" "$4" "$3" "$6" "$5"
    check_at_least "packets by queue $1 with the mapping $2" 100 $(($5 - $3))
    check "packets by the other queue" 0 $(($6 - $4))
    saw "mapping $2: $(($5 - $3)) packets by queue $1, none by the other"
    guest_must front_stop
    stage "$SCENARIO: mapping $2"
}

# known HASH WHAT: it came with a packet.
known() {
    awk -v hash="$1" '$2 == hash { found = 1 } END { exit !found }' "$RESULTS/traced.txt" ||
        fail "the hash $1 ($2) of Microsoft's verification suite: not among those in traced.txt"
    echo "$(now) s: ok: $2: $1"
}

offer 2
echo 0 >/proc/sys/net/ipv6/conf/xenbr0/accept_dad
ip addr add 66.9.149.187/32 dev xenbr0
ip route add 161.142.100.80 dev xenbr0 src 66.9.149.187
ip -6 addr add 3ffe:2501:200:1fff::7/128 dev xenbr0
ip -6 route add 3ffe:2501:200:3::1 dev xenbr0
guest_start 'vcpus=2'

# All by one queue, then all by the other: what has no hash, as ARP, goes by the first entry.
steers 1 1
steers 0 0,0
steers 1 1,1,1

# Both: an even hash by queue 1, an odd one by queue 0.
start --hash-mapping 1,0
hashed=$(guest front_each rx_hashed)
guest_must hash_trace
many_connections
ping -c 1 -W 2 -I 66.9.149.187 161.142.100.80
ping6 -c 1 -W 2 -I 3ffe:2501:200:1fff::7 3ffe:2501:200:3::1
# Nobody listens: the first packet of a connection is enough.
timeout 5 socat -u OPEN:/dev/null TCP4:161.142.100.80:1766,bind=66.9.149.187:2794
timeout 5 socat -u OPEN:/dev/null 'TCP6:[3ffe:2501:200:3::1]:1766,bind=[3ffe:2501:200:1fff::7]:2794'
guest hash_traced >"$RESULTS/traced.txt" || fail "the trace: $(tail -n 1 "$RESULTS/traced.txt")"
check_at_least "different hashes that came with packets" 20 "$(wc -l <"$RESULTS/traced.txt" | tr -d ' ')"
check "packets by another queue than the mapping names" 0 "$(awk '$1 != 1 - $2 % 2 { n += $3 } END { print n + 0 }' "$RESULTS/traced.txt")"
for queue in 0 1; do
    check_at_least "hashes that led to queue $queue" 1 "$(awk -v queue="$queue" '$1 == queue { n++ } END { print n + 0 }' "$RESULTS/traced.txt")"
done
# As the suite has them: 0x323e8fc2, 0x51ccc178, 0x2cc18cd5, 0x40207d3d.
known $((0x323e8fc2)) "IPv4, addresses alone"
known $((0x51ccc178)) "IPv4, with TCP's ports"
known $((0x2cc18cd5)) "IPv6, addresses alone"
known $((0x40207d3d)) "IPv6, with TCP's ports"
since=$(guest front_each rx_hashed)
# shellcheck disable=SC2086 # words
set -- $hashed $since
check_at_least "packets that came with a hash, by queue 0" 1 $(($3 - $1))
check_at_least "packets that came with a hash, by queue 1" 1 $(($4 - $2))
saw "mapping 1,0: $(wc -l <"$RESULTS/traced.txt" | tr -d ' ') different hashes, each by the queue that the mapping names; $(($3 - $1)) and $(($4 - $2)) packets with a hash"
saw "the hashes of Microsoft's verification suite are right: IPv4 and IPv6, with ports and without"
check "packets dropped" 0 "$(guest front_drops)"
guest_must front_stop

# netback keeps algorithm and mapping with the vif: a driver that goes has to end it.
guest_must hash_plain
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
many_connections
check "packets with a hash for the next driver, which asks for none" "0 0" "$(guest front_each rx_hashed)"
guest_must front_stop
saw "the next driver, which asks for none, gets none"
guest front_log >"$RESULTS/netfront.log"
