# shellcheck shell=sh
# library: a program over the library, no TAP and no kernel stack, with the kernel's netback: answers ARP and ping, echoes UDP; frames of 60042 bytes, answered in 64 pieces, cross whole.

# udp_echoed BYTES: one datagram of so many bytes comes back as it went.
udp_echoed() {
    head -c "$1" /dev/urandom | base64 -w 0 | head -c "$1" >/tmp/sent
    socat -b 65000 -t 3 -,ignoreeof UDP:10.77.0.2:7 </tmp/sent >/tmp/echoed 2>/dev/null &
    echoing=$!
    within 10 "a datagram of $1 bytes comes back" cmp -s /tmp/sent /tmp/echoed
    kill "$echoing" 2>/dev/null
    wait "$echoing" 2>/dev/null
}

guest_start
guest_must echo_start
ip neigh flush dev xenbr0
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
check "address that ARP found" 00:16:3e:00:00:02 "$(ip neigh show 10.77.0.2 dev xenbr0 | sed -n 's/.*lladdr \([^ ]*\).*/\1/p')"
ping -c 20 -i 0.1 -W 5 10.77.0.2 >"$RESULTS/ping.txt" 2>&1
check "pings answered" 20 "$(pings_answered <"$RESULTS/ping.txt")"
ping -c 5 -i 0.1 -W 5 -s 1400 10.77.0.2 >"$RESULTS/ping-1400.txt" 2>&1
check "pings of 1400 bytes answered" 5 "$(pings_answered <"$RESULTS/ping-1400.txt")"
sizes="1 18 64 500 1472"
for size in $sizes; do udp_echoed "$size"; done
saw "ARP, ping 25/25, UDP of $(echo "$sizes" | sed 's/ /, /g') bytes echoed"
guest_must echo_alive
guest echo_log >"$RESULTS/echo.log"

# The longest that Ethernet may be here: more pieces than a packet may have slots, and each answer in as few as hold it.
guest_must echo_stop
guest_must echo_start --pieces 64
if ! ip link set "$VIF" mtu 60100 || ! ip link set xenbr0 mtu 60100; then fail "no MTU of 60100 in dom0"; fi
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
record 100 /tmp/long.pcap 'greater 60042'
ping -c 5 -i 0.2 -W 5 -s 60000 10.77.0.2 >"$RESULTS/ping-60000.txt" 2>&1
check "pings of 60000 bytes answered" 5 "$(pings_answered <"$RESULTS/ping-60000.txt")"
udp_echoed 60000
# tcpdump gets a few packets at a time, the last ones a moment later.
sleep 1
stop_recording
for way in src dst; do
    # Of the datagrams there are as many as it took until one had come back.
    check_at_least "frames of 60042 bytes, $way the guest" 6 "$(tcpdump -r /tmp/long.pcap -Z root -n -e "ether $way 00:16:3e:00:00:02" 2>/dev/null | grep -c 'length 60042: ')"
done
# busybox' ping does not look at what comes back.
check "pings of 60000 bytes with a wrong sum" 0 "$(tcpdump -r /tmp/long.pcap -Z root -n -vv icmp 2>/dev/null | grep -c 'wrong icmp cksum')"
rm -f /tmp/long.pcap
ip link set xenbr0 mtu 1500
saw "ping 5/5 and UDP of 60000 bytes, each a frame of 60042 bytes, answered in 64 pieces"
guest_must echo_alive
guest echo_log >>"$RESULTS/echo.log"
