# shellcheck shell=sh source=/dev/null disable=SC2154 # some variables are those of lab.sh
# forward: one program owns two vifs and forwards between them, no kernel's network in between: both ends are the kernel's netback; no ping lost, TCP both ways with large segments whole, nothing dropped.
# guests: pv
# part: features
. /lab/far.sh
. /lab/steps.sh

# statistic NAME: of the first vif.
statistic() { cat "/sys/class/net/$VIF/statistics/$1"; }

# streamed WAY COUNTER [OPTION...]: TCP for three seconds, and the mean length of the packets that COUNTER's end of the first vif saw meanwhile. Data
# goes in large segments, so only whole ones make a mean above the MTU.
streamed() {
    way=$1
    counter=$2
    shift 2
    packets=$(statistic "${counter}_packets")
    bytes=$(statistic "${counter}_bytes")
    # iperf3 closes its listening socket after each test: a client that comes at once is reset.
    tries=5
    until timeout 60 iperf3 -c 10.77.0.50 -t 3 -f m "$@" >"$RESULTS/tcp-$way.txt" 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || fail "iperf3, $way: $(tail -n 1 "$RESULTS/tcp-$way.txt")"
        sleep 1
    done
    packets=$(($(statistic "${counter}_packets") - packets))
    bytes=$(($(statistic "${counter}_bytes") - bytes))
    check_at_least "packets, $way" 100 "$packets"
    check_at_least "bytes a packet, $way" 3000 $((bytes / packets))
    saw "TCP $way: $(megabits <"$RESULTS/tcp-$way.txt") Mbit/s in packets of $((bytes / packets)) bytes"
}

# dropped: of both ways, as the program last said.
dropped() { tail -n 1 "$RESULTS/forward.log" | grep -o '[0-9]* dropped' | awk '{ sum += $1 } END { print sum + 0 }'; }

guest_start
far_start || fail "the far end"
timeout 60 xl network-attach guest mac=00:16:3e:00:01:01 bridge=xenbr0 script=/etc/xen/scripts/vif-lab || fail "xl network-attach"
# Off the bridge before anything is forwarded, or a broadcast would go round for ever; and behind a kernel's network of its own.
brctl delif xenbr0 "vif$DOMID.1" || fail "brctl delif"
ip link set "vif$DOMID.1" netns "$(cat "$FAR_PROCESS")" || fail "vif$DOMID.1 into the namespace of the far end"
far ip addr add 10.77.0.50/24 dev "vif$DOMID.1" || fail "an address at the far end"
far ip link set "vif$DOMID.1" up
guest_must forward_start --offload
within 30 "the far end answers through the guest" ping -c 1 -W 1 10.77.0.50
ping -c 20 -i 0.1 -W 5 10.77.0.50 >"$RESULTS/ping.txt" 2>&1
check "pings answered" 20 "$(pings_answered <"$RESULTS/ping.txt")"
far iperf3 -s -D
# What netback sends to the guest it counts as transmitted.
streamed "there" tx
streamed "back" rx -R
# It says its numbers each second.
sleep 3
guest_must forward_alive
guest forward_log >"$RESULTS/forward.log"
check "packets dropped" 0 "$(dropped)"
saw "ping 20/20, 0 dropped"
