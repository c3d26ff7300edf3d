# shellcheck shell=sh
# The measures that more than one scenario takes: pings, TCP throughput, a file's way there and back.

# traffic_both MEBIBYTES: everything that a vif is there for, both ways; the file is of that size.
traffic_both() {
    ping_both 20
    tcp_both 2
    udp_both 2
    stage "$SCENARIO: a file of $1 MiB there and back"
    file_both "$1"
}

# pings_answered OUTPUT-OF-PING: how many of the packets came back. "3 packets received" says busybox, "3 received" iputils.
pings_answered() { sed -n 's/.* \([0-9]*\) \(packets \)*received.*/\1/p'; }

# megabits: the receiver's line of iperf3's report, whole Mbit/s.
megabits() { awk '/receiver/ { for (i = 2; i <= NF; i++) if ($i == "Mbits/sec") rate = $(i - 1) } END { printf "%d\n", rate }'; }

# ping_both COUNT: none may be lost, neither way.
ping_both() {
    ping -c "$1" -i 0.1 -W 5 10.77.0.2 >"$RESULTS/ping-to-guest.txt" 2>&1
    cat "$RESULTS/ping-to-guest.txt"
    check "pings from dom0 answered by the guest" "$1" "$(pings_answered <"$RESULTS/ping-to-guest.txt")"
    guest ping -c "$1" -i 0.1 -W 5 10.77.0.1 >"$RESULTS/ping-to-dom0.txt" 2>&1
    cat "$RESULTS/ping-to-dom0.txt"
    check "pings from the guest answered by dom0" "$1" "$(pings_answered <"$RESULTS/ping-to-dom0.txt")"
    saw "ping $1/$1 both ways"
}

# tcp_both SECONDS: both directions must move data. No speed is asked for: the machine is emulated.
tcp_both() {
    timeout $(($1 + 30)) iperf3 -c 10.77.0.2 -t "$1" -f m >"$RESULTS/tcp-to-guest.txt" 2>&1
    tail -n 6 "$RESULTS/tcp-to-guest.txt"
    to_guest=$(megabits <"$RESULTS/tcp-to-guest.txt")
    check_at_least "TCP to the guest, Mbit/s" 1 "$to_guest"
    GUEST_DEADLINE=$(($1 + 30)) guest iperf3 -c 10.77.0.1 -t "$1" -f m >"$RESULTS/tcp-from-guest.txt" 2>&1
    tail -n 6 "$RESULTS/tcp-from-guest.txt"
    from_guest=$(megabits <"$RESULTS/tcp-from-guest.txt")
    check_at_least "TCP from the guest, Mbit/s" 1 "$from_guest"
    saw "TCP $to_guest Mbit/s to the guest, $from_guest from it"
}

# udp_both SECONDS: both directions at a rate that an emulated machine can carry; at most a tenth may be lost.
udp_both() {
    timeout $(($1 + 30)) iperf3 -u -c 10.77.0.2 -t "$1" -b 4M -l 1400 -w 2M -f m >"$RESULTS/udp-to-guest.txt" 2>&1
    timeout $(($1 + 30)) iperf3 -u -R -c 10.77.0.2 -t "$1" -b 4M -l 1400 -w 2M -f m >"$RESULTS/udp-from-guest.txt" 2>&1
    for way in to from; do
        tail -n 4 "$RESULTS/udp-$way-guest.txt"
        lost=$(datagrams 1 <"$RESULTS/udp-$way-guest.txt")
        all=$(datagrams 2 <"$RESULTS/udp-$way-guest.txt")
        # Without a single datagram iperf3 says that none was lost. A third of the rate, since an emulated machine may
        # have to wait for a real one; the same makes a socket's usual 200 KB too small.
        check_at_least "datagrams until the last that arrived, $way the guest" $(($1 * 100)) "$all"
        check_at_least "those of $all that arrived, $way the guest" $((all - all / 10)) $((all - lost))
    done
    saw "UDP $(datagrams 2 <"$RESULTS/udp-to-guest.txt") datagrams to the guest, $(datagrams 2 <"$RESULTS/udp-from-guest.txt") from it"
}

# datagrams 1|2: out of LOST/TOTAL in the receiver's line of iperf3's report.
datagrams() { sed -n "s|.* \\([0-9]*\\)/\\([0-9]*\\) (.*receiver.*|\\$1|p"; }

# file_both MEBIBYTES: a file of random bytes to the guest and back; the guest's sum and ours must agree,
# and what comes back must be the file.
# Over HTTP: the length is announced, so a file that was cut short is an error and not only another sum.
file_both() {
    mkdir -p /tmp/www
    dd if=/dev/urandom of=/tmp/www/file bs=1M count="$1" 2>/dev/null
    sum=$(sha256sum </tmp/www/file | cut -d' ' -f1)
    # One of an earlier file holds the port.
    killall httpd 2>/dev/null
    httpd -p 8080 -h /tmp/www
    export GUEST_DEADLINE=90
    guest_must 'mkdir -p /tmp/www && wget -q -O /tmp/www/file http://10.77.0.1:8080/file && { killall httpd 2>/dev/null; httpd -p 8080 -h /tmp/www; }'
    check "sha256 of $1 MiB in the guest" "$sum" "$(guest 'sha256sum </tmp/www/file | cut -d" " -f1')"
    unset GUEST_DEADLINE
    timeout 90 wget -q -O /tmp/back http://10.77.0.2:8080/file || fail "the file did not come back from the guest"
    # Byte by byte instead of a third sum, which takes an emulated processor longer than the way through the vif.
    check "bytes of $1 MiB that came back otherwise" none "$(cmp /tmp/www/file /tmp/back 2>&1 && echo none)"
    rm -f /tmp/www/file /tmp/back
    saw "$1 MiB equal both ways"
}
