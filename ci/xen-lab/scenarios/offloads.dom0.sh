# shellcheck shell=sh source=/dev/null
# offloads: ours with the kernel's netback under 8 settings of `ethtool -K` with every pair of those of both sides: TCP and UDP over IPv4 and IPv6 both ways, no wrong checksum behind either kernel, large segments whole where both ends take them; then with what one end does not ask for or does not offer.
# guests: pv
# part: features
. /lab/far.sh
. /lab/offload.sh

# The settings of dom0's vif and of the guest's TAP. Each on and each off of the twelve stands beside each on and each off of
# every other at least once, as far as the kernel lets it: tso and tso6 need tx and sg, gso needs sg. rx is not among them,
# since neither interface lets it be changed. gro does nothing to packets on either, but it is a setting.
settings() {
    cat <<'END'
tx,sg,tso,tso6,gso,gro  tx,sg,tso,tso6,gso,gro
-                       gro
sg,gso,gro              tx,sg,tso6
tx,sg,tso,tso6          sg,gso
gro                     tx,sg,tso,gso
tx,sg,tso,gso,gro       -
tx                      tx,sg,tso,tso6
tx,sg,tso6,gso          tx,gro
END
}
ALL=tx,sg,tso,tso6,gso,gro

# has LIST NAME: yes or no.
has() {
    case ",$1," in *",$2,"*) echo yes ;; *) echo no ;; esac
}

# number NAME FILE: out of lines with a name and a number.
number() { sed -n "s/^$1 //p" "$2"; }

# check_if YES|NO WHAT FOUND: some, or none.
check_if() {
    if [ "$1" = yes ]; then check_at_least "$2" 1 "$3"; else check "$2" 0 "$3"; fi
}

# crosses NAME: files and datagrams of both families both ways; what was found is in NAME.dom0.txt and NAME.guest.txt.
#
# Each way ends behind the kernel that it goes to. To the guest: from dom0's own stack, which leaves to the vif what the vif
# can do, to the guest's far end. From the guest: from the guest's own stack, which leaves to the TAP what it can, to dom0's.
crosses() {
    mine=$RESULTS/$1.dom0.txt
    theirs=$RESULTS/$1.guest.txt
    guest_must offloads_begin
    far_record /tmp/far.pcap >"$mine" || fail "the far end in dom0: $(cat "$mine")"
    errors=$(sum_errors)
    errors_far=$(sum_errors far)
    record 100000 /tmp/large.pcap 'greater 1515'

    guest_must offloads_fetch
    for address in 10.77.0.2 '[fd77::2]'; do
        far timeout 40 wget -q -O /tmp/fetched "http://$address:8080/file" || fail "$1: no file from $address"
        check "$1: bytes of the file from $address that are otherwise" none "$(cmp /tmp/fetched /tmp/www/file 2>&1 && echo none)"
    done
    datagrams_to "$1" 10.78.0.2
    datagrams_to "$1" fd78::2
    datagrams_to "$1" 10.77.0.3 guest
    datagrams_to "$1" fd77::3 guest

    stop_recording
    far_recorded >"$mine" || fail "the far end in dom0: $(cat "$mine")"
    {
        sums /tmp/far.pcap
        echo "errors_far $(($(sum_errors far) - errors_far))"
        echo "errors $(($(sum_errors) - errors))"
        large to4 'ip and ether dst 00:16:3e:00:00:02'
        large to6 'ip6 and ether dst 00:16:3e:00:00:02'
        large from4 'ip and ether src 00:16:3e:00:00:02'
        large from6 'ip6 and ether src 00:16:3e:00:00:02'
    } >"$mine"
    guest_must offloads_end >"$theirs"
    for file in "$mine" "$theirs"; do sums_are_right "$1" "$file"; done
    nothing_dropped
    rm -f /tmp/large.pcap /tmp/far.pcap /tmp/fetched
}

# datagrams_to NAME ADDRESS [guest]: 192 of a full frame each, from dom0, or from the guest. At most a tenth may be lost. The receiver
# counts until it is told of the end, by another connection: what is under way then is not among them.
datagrams_to() {
    report=$RESULTS/$1.udp-to-${2%%:*}.txt
    # Not the other way round by iperf3's -R: the receiver would wait for a datagram that is lost.
    # Its server resets who comes while it still closes the last test.
    for attempt in 1 2 3; do
        ${3:-} timeout 40 iperf3 -u -c "$2" -k 192 -l 1400 -b 10M -f m >"$report" 2>&1 && break
        [ "$attempt" -lt 3 ] || fail "$1: iperf3 to $2: $(tail -n 1 "$report")"
        sleep 1
    done
    all=$(datagrams 2 <"$report")
    check_at_least "$1: datagrams to $2 until the last that arrived" 32 "$all"
    check_at_least "$1: those of $all that arrived" $((all - all / 10)) $((all - $(datagrams 1 <"$report")))
}

# large NAME FILTER: packets of more than a frame that passed the vif whole.
large() { echo "large_$1 $(tcpdump -r /tmp/large.pcap -Z root -n "$2" 2>/dev/null | wc -l | tr -d ' ')"; }

# sums_are_right NAME FILE: some of each kind were seen, and none that is wrong.
sums_are_right() {
    for kind in tcp4 udp4 tcp6 udp6; do
        check_at_least "$1: right sums of $kind in ${2##*/}" 32 "$(number "$kind" "$2")"
    done
    check "$1: wrong sums in ${2##*/}" 0 "$(number wrong "$2")"
    check "$1: packets longer than a frame in ${2##*/}" 0 "$(number long "$2")"
    for end in errors errors_far; do
        check "$1: packets with a wrong sum that a kernel threw away, $end of ${2##*/}" 0 "$(number $end "$2")"
    done
}

# segments WAY V4 V6: whether large segments of this way ("to" the guest or "from" it) crossed, by the capture and by our driver's counters.
segments() {
    ring=rx
    [ "$1" = to ] || ring=tx
    check_if "$2" "large IPv4 packets on the vif $1 the guest" "$(number "large_${1}4" "$mine")"
    check_if "$3" "large IPv6 packets on the vif $1 the guest" "$(number "large_${1}6" "$mine")"
    check_if "$2" "${ring}_gso_tcpv4" "$(number "${ring}_gso_tcpv4" "$theirs")"
    check_if "$3" "${ring}_gso_tcpv6" "$(number "${ring}_gso_tcpv6" "$theirs")"
}

# nothing_dropped: our driver understood every packet, netback took every one.
nothing_dropped() {
    dropped=$(awk '$1 ~ /_(drop_.*|errors|dropped)$/ && $2 != 0 { print $1, $2 }' "$theirs")
    check "packets that our driver dropped" none "${dropped:-none}"
}

# setting NUMBER VIF TAP
setting() {
    offload "$VIF" "$2" >"$RESULTS/ethtool.txt" || fail "in dom0: $(cat "$RESULTS/ethtool.txt")"
    guest_must "offload xn0 $3"
    crosses "$1"
    segments to "$(has "$2" tso)" "$(has "$2" tso6)"
    segments from "$(has "$3" tso)" "$(has "$3" tso6)"
    check_if "$(has "$2" tx)" "packets received with a blank checksum" "$(number rx_csum_blank "$theirs")"
    check_if "$(has "$3" tx)" "packets sent with a blank checksum" "$(number tx_csum_blank "$theirs")"
    tell_found "vif $2, TAP $3"
    stage "$SCENARIO: setting $1: vif $2, TAP $3"
}

# tell_found WHAT: a line of the scenario's table.
tell_found() {
    right=0
    for file in "$mine" "$theirs"; do
        for kind in tcp4 udp4 tcp6 udp6; do right=$((right + $(number "$kind" "$file"))); done
    done
    counts=$right
    for way in to4 to6 from4 from6; do counts="$counts, $way $(number "large_$way" "$mine")"; done
    echo "$1: right sums $counts large" >>"$RESULTS/offloads.txt"
    all_sums=$((all_sums + right))
}

# front_anew [OPTION...]: with all that the vif and the TAP can do.
front_anew() {
    guest_must offloads_front "$@"
    # The first packets bring the bridge to know where the new TAP is.
    within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
    within 30 "the guest's far end answers" ping -c 1 -W 1 10.78.0.2
}

echo 0 >/proc/sys/net/ipv6/conf/xenbr0/accept_dad
guest_start
guest_must offloads_far
far_start >"$RESULTS/far.txt" || fail "the far end in dom0: $(cat "$RESULTS/far.txt")"
brctl addif xenbr0 lab0 || fail "brctl addif xenbr0 lab0"
ip -6 addr add fd77::1/64 dev xenbr0
far ip addr add 10.77.0.3/24 dev lab1
far ip -6 addr add fd77::3/64 dev lab1
ip route add 10.78.0.0/24 via 10.77.0.2
ip -6 route add fd78::/64 via fd77::2
far iperf3 -s -D
mkdir -p /tmp/www
dd if=/dev/urandom of=/tmp/www/file bs=1k count=512 2>/dev/null
killall httpd 2>/dev/null
httpd -p 8080 -h /tmp/www
front_anew
guest_must wget -q -O /tmp/www/file http://10.77.0.1:8080/file
check "sha256 of the file in the guest" "$(sha256sum </tmp/www/file)" "$(guest 'sha256sum </tmp/www/file')"
within 30 "dom0's far end reaches the guest" far ping -c 1 -W 1 10.77.0.2
within 30 "and by IPv6" far ping6 -c 1 -W 1 fd77::2
within 30 "IPv6 reaches the guest's far end" ping6 -c 1 -W 1 fd78::2
stage "$SCENARIO: the far ends are there"

: >"$RESULTS/offloads.txt"
all_sums=0
count=$(settings | wc -l | tr -d ' ')
at=0
while [ "$at" -lt "$count" ]; do
    at=$((at + 1))
    # shellcheck disable=SC2046 # two words
    setting "$at" $(settings | sed -n "${at}p")
done
saw "$count settings of vif and TAP, TCP and UDP over IPv4 and IPv6 both ways: $all_sums right checksums behind the two kernels, 0 wrong"
saw "large segments whole just where vif or TAP have tso, tso6"
offload "$VIF" "$ALL" >"$RESULTS/ethtool.txt" || fail "in dom0: $(cat "$RESULTS/ethtool.txt")"

# Not asked for by us: dom0's kernel cuts, and fills in.
front_anew --no-gso
crosses no-gso
segments to no no
segments from yes yes
check_at_least "packets received with a blank checksum" 1 "$(number rx_csum_blank "$theirs")"
tell_found "--no-gso"
front_anew --no-csum
crosses no-csum
segments to no no
segments from yes yes
check "packets received with a blank checksum with --no-csum" 0 "$(number rx_csum_blank "$theirs")"
tell_found "--no-csum"

# Not offered by the backend: the guest's kernel cuts, and our driver fills in what the guest leaves blank.
offers feature-gso-tcpv6 0
front_anew
crosses no-gso-tcpv6
segments to yes yes
segments from yes no
tell_found "no feature-gso-tcpv6"
offers feature-gso-tcpv6 1
offers feature-ipv6-csum-offload 0
front_anew
crosses no-ipv6-csum
segments from yes no
check_at_least "checksums that our driver filled in" 32 "$(number tap_checksums_filled "$theirs")"
filled=$(number tap_checksums_filled "$theirs")
tell_found "no feature-ipv6-csum-offload"
offers feature-ipv6-csum-offload 1
offers feature-no-csum-offload 1
front_anew
crosses no-csum-offload
segments from no no
check "packets sent with a blank checksum" 0 "$(number tx_csum_blank "$theirs")"
tell_found "feature-no-csum-offload"
saw "the same with --no-gso, --no-csum, and a backend without feature-gso-tcpv6, feature-ipv6-csum-offload ($filled checksums filled in by us) or checksum offload"
guest front_log >"$RESULTS/netfront.log"
cat "$RESULTS/offloads.txt"
guest_must front_stop
