# shellcheck shell=sh source=/dev/null
# offloads, the guest's side: our driver as in the scenario `limits`; the guest routes to a far end of its own.
. /lab/scenarios/limits.guest.sh
. /lab/far.sh
. /lab/offload.sh

# offloads_far: the far end behind the guest, 10.78.0.2 and fd78::2, and who serves there.
offloads_far() {
    # Before there are interfaces: an address that is looked for twice could not be used for a second.
    echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
    far_start || return 1
    ip addr add 10.78.0.1/24 dev lab0 && ip -6 addr add fd78::1/64 dev lab0 || return 1
    far ip addr add 10.78.0.2/24 dev lab1 && far ip -6 addr add fd78::2/64 dev lab1 || return 1
    far ip route add default via 10.78.0.1 && far ip -6 route add default via fd78::1 || return 1
    echo 1 >/proc/sys/net/ipv4/ip_forward
    echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
    far iperf3 -s -D >/dev/null 2>&1
    iperf3 -s -D >/dev/null 2>&1
    mkdir -p /tmp/www && httpd -p 8080 -h /tmp/www
}

# offloads_front [OPTION...]: a driver anew; its TAP went with the last one.
offloads_front() {
    [ ! -e /run/lab/netfront.pid ] || ! front_alive || front_stop || return 1
    front_start "$@" && front_wait || return 1
    ip addr add 10.77.0.2/24 dev xn0 && ip -6 addr add fd77::2/64 dev xn0
}

# counters: lines of a name and a number.
counters() { netfront stats --vif 0; }

# offloads_begin: from now on packets are captured and counted.
offloads_begin() {
    far_record /run/lab/far.pcap || return 1
    sum_errors far >/run/lab/far-errors.before
    sum_errors >/run/lab/errors.before
    counters >/run/lab/stats.before
}

# offloads_tagged: the TAP in VLAN 5 as well.
offloads_tagged() {
    modprobe 8021q && ip link add link xn0 name xn0.5 type vlan id 5 || return 1
    ip link set xn0.5 up && ip addr add 10.75.0.2/24 dev xn0.5 && ip -6 addr add fd75::2/64 dev xn0.5
}

# offloads_fetch NET: the far end fetches the file from dom0 by each address, and has what the guest has.
offloads_fetch() {
    for address in "10.$1.0.1" "[fd$1::1]"; do
        far timeout 40 wget -q -O /tmp/fetched "http://$address:8080/file" || { echo "no file from $address"; return 1; }
        cmp /tmp/fetched /tmp/www/file || return 1
    done
    rm -f /tmp/fetched
}

# offloads_end: what was captured and counted, a name and a number in each line.
offloads_end() {
    far_recorded || return 1
    counters >/run/lab/stats.after
    sums /run/lab/far.pcap
    echo "errors_far $(($(sum_errors far) - $(cat /run/lab/far-errors.before)))"
    echo "errors $(($(sum_errors) - $(cat /run/lab/errors.before)))"
    awk '
        { sub(":", "", $1) }
        FNR == NR { before[$1] = $2; next }
        $1 ~ /^([rt]x_(gso_tcpv[46]|gso_checksum_fixup|csum_blank|drop_.*|errors|dropped)|tap_(checksums_filled|segments_cut|drop_.*))$/ {
            print $1, $2 - before[$1]
        }' /run/lab/stats.before /run/lab/stats.after
    rm -f /run/lab/far.pcap
}
