# shellcheck shell=sh
# observe: while packets pass: status, stats, top, trace, capture (read by tcpdump), metrics over HTTP and in a file, kick, pause, the three modes; what it takes when nothing passes; the example in C on a second vif.
# guests: pv pvh
# part: features

# shellcheck source=/dev/null
. /lab/steps.sh

# kept NAME: a file of the guest comes out.
kept() { guest cat "/run/lab/$1" >"$RESULTS/$1"; }

# in_capture FILTER: packets of the file, as tcpdump reads it.
in_capture() { tcpdump -r "$RESULTS/capture.pcap" -Z root -n "$1" 2>/dev/null | wc -l; }

guest_start
guest_must front_start --metrics 127.0.0.1:9477 --metrics-file /run/lab/vif0.prom
guest_must front_wait
guest_must front_address
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
# Traffic both ways for as long as this takes.
ping -i 0.05 10.77.0.2 >"$RESULTS/traffic.txt" 2>&1 &

step "status" status_told
kept status.txt
kept status.json
step "stats" stats_told
step "top" top_told
kept top.txt
step "trace" 'trace_told 200'
kept trace.txt
saw "status, stats, top and a trace of 200 lines say what is so"

step "capture" 'captured 60'
guest base64 /run/lab/capture.pcap | base64 -d >"$RESULTS/capture.pcap"
check "packets that tcpdump reads" 60 "$(in_capture '')"
check_at_least "requests among them" 20 "$(in_capture 'icmp[0] = 8')"
check_at_least "replies among them" 20 "$(in_capture 'icmp[0] = 0')"
saw "60 packets captured, 60 read by tcpdump, both ways"

step "metrics" metrics_told
kept metrics.txt
saw "metrics by HTTP and in a file agree with the counters"

step "kick" kicked
step "pause" paused_stays
check "pings answered while it is paused" 0 "$(ping -c 2 -W 1 10.77.0.2 2>&1 | pings_answered)"
step "resume" resumed
ping_both 5 >/dev/null
saw "kick; a pause in which nothing passes, and after it everything"

for mode in interrupt poll adaptive; do
    step "mode $mode" "in_mode $mode"
    ping_both 5 >/dev/null
    guest rounds_and_events >"$RESULTS/$mode.txt"
    saw "$mode: $(cut -d' ' -f1 "$RESULTS/$mode.txt") rounds and $(cut -d' ' -f2 "$RESULTS/$mode.txt") events in a second"
done
# A driver that polls does rounds without end; one that waits for events does not.
check_at_least "rounds a second in mode poll" $((10 * $(cut -d' ' -f1 "$RESULTS/interrupt.txt"))) "$(cut -d' ' -f1 "$RESULTS/poll.txt")"

stage "$SCENARIO: nothing passes"
killall ping
# netback and both kernels come to rest: neighbours, the bridge's and IPv6's messages.
sleep 5
packets=$(cat "/sys/class/net/$VIF/statistics/tx_packets" "/sys/class/net/$VIF/statistics/rx_packets" | awk '{ sum += $1 } END { print sum }')
guest slept 20 >"$RESULTS/idle.txt"
packets=$(($(cat "/sys/class/net/$VIF/statistics/tx_packets" "/sys/class/net/$VIF/statistics/rx_packets" | awk '{ sum += $1 } END { print sum }') - packets))
read -r woken ticks memory <"$RESULTS/idle.txt"
# A packet may wake a thread more than once; besides, some sleeps end by themselves.
check_at_least "wake-ups a second of an idle driver, below 5 and two a packet: room left" 0 $((5 * 20 + 2 * packets - woken))
saw "idle for 20 s, $packets packets: $woken wake-ups, ${ticks}0 ms of a processor, $memory KiB (PSS)"

stage "$SCENARIO: the example in C"
# Two pools.
guest_must 'front_limit 4096'
timeout 40 xl network-attach guest mac=00:16:3e:00:00:03 bridge=xenbr0 script=/etc/xen/scripts/vif-lab || fail "xl network-attach"
step "the example in C" echo_c_start
within 20 "ARP and ping are answered by the example in C" ping -c 1 -W 1 10.77.0.3
check "address that ARP found" 00:16:3e:00:00:03 "$(ip neigh show 10.77.0.3 dev xenbr0 | sed -n 's/.*lladdr \([^ ]*\).*/\1/p')"
ping -c 20 -i 0.1 -W 5 -s 1000 10.77.0.3 >"$RESULTS/echo-c-ping.txt" 2>&1
check "pings of 1000 bytes that the example in C answered" 20 "$(pings_answered <"$RESULTS/echo-c-ping.txt")"
step "its end" 'echo_c_stop 20'
check "state of the second vif's backend after its goodbye" 6 "$(xenstore-read "/local/domain/0/backend/vif/$DOMID/1/state")"
saw "the example in C on a second vif answers ARP, and 20 of 20 pings of 1000 bytes"

ping_both 3 >/dev/null
guest front_log >"$RESULTS/netfront.log"
step "stop" stopped
