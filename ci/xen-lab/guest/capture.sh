# shellcheck shell=sh
# A record of what two kernels say to each other on a vif: small, but with one of each kind of packet.

# counted NAME FILTER: adds a line to the capture's table.
counted() {
    count=$(tcpdump -r "$capture" -Z root -n "$2" 2>/dev/null | wc -l)
    echo "$1 $count" >>"$RESULTS/capture.txt"
    check_at_least "$1 packets in the capture" 1 "$count"
}

# record COUNT FILE FILTER: starts tcpdump on the guest's vif, at most COUNT packets; leaves its pid in `recorder`.
record() {
    : >"$RESULTS/tcpdump.txt"
    # -U: what was seen is in the file at once. -Z root: there is no other user in the image.
    tcpdump -i "$VIF" -s 262144 -U -B 8192 -Z root -c "$1" -w "$2" "$3" 2>"$RESULTS/tcpdump.txt" &
    recorder=$!
    within 10 "tcpdump listens" grep -q 'listening on' "$RESULTS/tcpdump.txt"
}

stop_recording() {
    kill -INT "$recorder" 2>/dev/null
    wait "$recorder"
    cat "$RESULTS/tcpdump.txt"
}

mixed_traffic() {
    ip neigh flush dev xenbr0
    guest_must 'ip neigh flush dev eth0'
    # ICMP: small, large, in fragments (two to fourteen); both ends ask.
    for size in 0 18 56 1400 1472 2000 9000 20000; do
        ping -c 1 -W 2 -s "$size" 10.77.0.2
    done
    # shellcheck disable=SC2016 # the guest's shell expands it
    guest 'for size in 1 64 1000 1473 6000; do ping -c 1 -W 2 -s "$size" 10.77.0.1; done'
    # IPv6: neighbour discovery comes by itself, then a ping to all.
    ping6 -c 1 -W 2 "ff02::1%xenbr0"
    # UDP: small datagrams to the guest, full ones from it, some of several fragments each way.
    timeout 20 iperf3 -u -c 10.77.0.2 -l 18 -k 6 -b 1M >/dev/null
    timeout 20 iperf3 -u -c 10.77.0.2 -l 1400 -k 6 -b 1M -R >/dev/null
    timeout 20 iperf3 -u -c 10.77.0.2 -l 8000 -k 2 -b 1M --bidir >/dev/null
    # TCP each way: a slow start, so segments from one packet to many.
    timeout 20 iperf3 -c 10.77.0.2 -l 64K -n 128K >/dev/null
    timeout 20 iperf3 -c 10.77.0.2 -l 64K -n 128K -R >/dev/null
    sleep 1
}

# large_segments: a few of the largest that GSO makes, each way, out of transfers that are too long to keep.
large_segments() {
    record 3 /tmp/large.pcap "greater 40000 and dst host 10.77.0.2"
    timeout 20 iperf3 -c 10.77.0.2 -n 20M >/dev/null
    stop_recording
    tail -c +25 /tmp/large.pcap >>"$1"
    record 3 /tmp/large.pcap "greater 40000 and src host 10.77.0.2"
    timeout 20 iperf3 -c 10.77.0.2 -n 20M -R >/dev/null
    stop_recording
    # A capture begins with 24 bytes of header; what follows are packets, and may stand after others.
    tail -c +25 /tmp/large.pcap >>"$1"
}

# capture_both_ways FILE: about 300 packets, under 1 MiB, whole: what GSO made is one packet here.
capture_both_ways() {
    capture=$1
    record 400 "$capture" ''
    mixed_traffic
    stop_recording
    large_segments "$capture"
    : >"$RESULTS/capture.txt"
    counted all ''
    counted arp arp
    counted icmp icmp
    counted fragments 'ip[6:2] & 0x3fff != 0'
    counted udp udp
    counted tcp tcp
    counted larger-than-the-MTU 'greater 1515'
    counted from-the-guest 'ether src 00:16:3e:00:00:02'
    largest=$(tcpdump -r "$capture" -Z root -n -e 2>/dev/null | sed -n 's/.* length \([0-9]*\): .*/\1/p' | sort -n | tail -n 1)
    bytes=$(wc -c <"$capture")
    [ "$bytes" -lt 1048576 ] || fail "the capture has $bytes bytes: wanted less than 1 MiB"
    saw "capture of $(sed -n 's/^all //p' "$RESULTS/capture.txt") packets, $bytes bytes, largest packet $largest bytes"
}
