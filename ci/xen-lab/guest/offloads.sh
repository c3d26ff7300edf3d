# shellcheck shell=sh source=/dev/null disable=SC2034 # some variables are for scenarios
# What the scenarios `offloads` and `back-offloads` share, in dom0: a table of settings, what crosses under each, and what
# must be found of it. far.sh says why there are far ends.
. /lab/far.sh
. /lab/offload.sh

# settings: of dom0's interface and of the guest's, a line for each pair. Each on and each off of the twelve stands beside each
# on and each off of every other at least once, as far as the kernel lets it: tso and tso6 need tx and sg, gso needs sg. rx is
# not among them, since none of the interfaces lets it be changed. gro does nothing to packets on a vif or a TAP, but it is a
# setting.
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

# Where the two kernels meet: 10.77.0.0/24 and fd77::/64, or another number in the place of 77.
NET=77
# "vlan and " while everything is tagged: to tcpdump a tagged packet is none of IP otherwise.
TAGGED=

# crosses NAME: files and datagrams of both families both ways; what was found is in NAME.dom0.txt and NAME.guest.txt.
#
# Each way ends behind the kernel that it goes to. To the guest: from dom0's own stack, which leaves to its interface what that
# can do, to the guest's far end. From the guest: from the guest's own stack, which leaves to its interface what that
# can, to dom0's. The guest's script has `offloads_begin`, `offloads_fetch` and `offloads_end`.
crosses() {
    mine=$RESULTS/$1.dom0.txt
    theirs=$RESULTS/$1.guest.txt
    guest_must offloads_begin
    far_record /tmp/far.pcap >"$mine" || fail "the far end in dom0: $(cat "$mine")"
    errors=$(sum_errors)
    errors_far=$(sum_errors far)
    record 100000 /tmp/passed.pcap 'greater 1515 or udp or vlan'

    guest_must "offloads_fetch $NET"
    for address in "10.$NET.0.2" "[fd$NET::2]"; do
        far timeout 40 wget -q -O /tmp/fetched "http://$address:8080/file" || fail "$1: no file from $address"
        check "$1: bytes of the file from $address that are otherwise" none "$(cmp /tmp/fetched /tmp/www/file 2>&1 && echo none)"
    done
    datagrams_to "$1" 10.78.0.2
    datagrams_to "$1" fd78::2
    datagrams_to "$1" "10.$NET.0.3" guest
    datagrams_to "$1" "fd$NET::3" guest

    stop_recording
    far_recorded >"$mine" || fail "the far end in dom0: $(cat "$mine")"
    {
        sums /tmp/far.pcap
        echo "errors_far $(($(sum_errors far) - errors_far))"
        echo "errors $(($(sum_errors) - errors))"
        for family in 4 6; do
            passed "to$family" "${family#4}" 'dst 00:16:3e:00:00:02'
            passed "from$family" "${family#4}" 'src 00:16:3e:00:00:02'
        done
    } >"$mine"
    guest_must offloads_end >"$theirs"
    for file in "$mine" "$theirs"; do sums_are_right "$1" "$file"; done
    rm -f /tmp/passed.pcap /tmp/far.pcap /tmp/fetched
}

# datagrams_to NAME ADDRESS [guest]: 192 of a full frame each, from dom0, or from the guest. At least half must arrive. The receiver
# counts until it is told of the end, by another connection: what is under way then is not among them.
datagrams_to() {
    report=$RESULTS/$1.udp-to-${2%%:*}.txt
    attempts=5
    # Not the other way round by iperf3's -R: the receiver would wait for a datagram that is lost.
    until ${3:-} timeout 40 iperf3 -u -c "$2" -k 192 -l 1400 -b 10M -f m >"$report" 2>&1; do
        attempts=$((attempts - 1))
        # Its server closes the listening socket after each test and opens another: who comes in between is reset.
        if [ "$attempts" = 0 ] || ! grep -qE 'Connection (reset by peer|refused)' "$report"; then
            fail "$1: iperf3 to $2: $(tail -n 1 "$report")"
        fi
        sleep 0.5
    done
    all=$(datagrams 2 <"$report")
    check_at_least "$1: datagrams to $2 until the last that arrived" 32 "$all"
    # A receiver that gets no processor for a while loses some, here too; what is looked at is what arrived.
    check_at_least "$1: those of $all that arrived" $((all / 2)) $((all - $(datagrams 1 <"$report")))
}

# passed NAME 6|'' END: of one family, from or to the guest: packets of more than a frame that passed the vif whole, and datagrams that
# passed it with a blank checksum, which a capture there shows as a wrong one.
passed() {
    what="ether $3 and ${TAGGED}ip$2"
    # A tag is 4 bytes more.
    frame=1514
    [ -z "$TAGGED" ] || frame=1518
    echo "large_$1 $(tcpdump -r /tmp/passed.pcap -Z root -n "greater $((frame + 1)) and $what" 2>/dev/null | wc -l | tr -d ' ')"
    echo "blank_$1 $(tcpdump -r /tmp/passed.pcap -Z root -n -vv "less $frame and $what and udp" 2>/dev/null | grep -c 'bad udp cksum')"
}

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

# whole WAY V4 V6: whether large segments of this way ("to" the guest or "from" it) passed the vif whole, by the capture.
whole() {
    check_if "$2" "large IPv4 packets on the vif $1 the guest" "$(number "large_${1}4" "$mine")"
    check_if "$3" "large IPv6 packets on the vif $1 the guest" "$(number "large_${1}6" "$mine")"
}

# nothing_dropped: whoever drives the vif in the guest understood every packet, and the backend took every one.
nothing_dropped() {
    dropped=$(awk '$1 ~ /_(drop_.*|errors|dropped)$/ && $2 != 0 { print $1, $2 }' "$theirs")
    check "packets that the guest's driver dropped" none "${dropped:-none}"
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

# each_setting: the scenario's `setting NUMBER DOM0 GUEST` with each line of the table; their number is in `count` then.
each_setting() {
    count=$(settings | wc -l | tr -d ' ')
    at=0
    while [ "$at" -lt "$count" ]; do
        at=$((at + 1))
        # shellcheck disable=SC2046 # two words
        setting "$at" $(settings | sed -n "${at}p")
    done
}

# far_ends: both, and who serves there; before the guest has an interface.
far_ends() {
    : >"$RESULTS/offloads.txt"
    all_sums=0
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
}

# far_ends_meet: once the guest is connected; and it has the file that is to cross.
far_ends_meet() {
    guest_must wget -q -O /tmp/www/file http://10.77.0.1:8080/file
    check "sha256 of the file in the guest" "$(sha256sum </tmp/www/file)" "$(guest 'sha256sum </tmp/www/file')"
    within 30 "dom0's far end reaches the guest" far ping -c 1 -W 1 10.77.0.2
    within 30 "and by IPv6" far ping6 -c 1 -W 1 fd77::2
    within 30 "IPv6 reaches the guest's far end" ping6 -c 1 -W 1 fd78::2
    stage "$SCENARIO: the far ends are there"
}

# routes_to_far: by which way dom0 reaches the guest's far end.
routes_to_far() {
    ip route replace 10.78.0.0/24 via "10.$NET.0.2" || fail "no route to the guest's far end"
    ip -6 route replace fd78::/64 via "fd$NET::2" || fail "no IPv6 route to the guest's far end"
}

# tagged_begin: the same two kernels and far ends in VLAN 5 as well, 10.75.0.0/24 and fd75::/64, and from now on they meet there. On the
# bridge, which hands tagged frames on as they are: an interface upon the vif would take them away from dom0's far end.
tagged_begin() {
    modprobe 8021q || fail "modprobe 8021q"
    # That of an earlier scenario, which may have ended anywhere.
    ip link del xenbr0.5 2>/dev/null
    ip link add link xenbr0 name xenbr0.5 type vlan id 5 || fail "no VLAN on xenbr0"
    echo 0 >/proc/sys/net/ipv6/conf/xenbr0.5/accept_dad
    if ! ip link set xenbr0.5 up || ! ip addr add 10.75.0.1/24 dev xenbr0.5 || ! ip -6 addr add fd75::1/64 dev xenbr0.5; then
        fail "no addresses in the VLAN"
    fi
    far ip link add link lab1 name lab1.5 type vlan id 5 || fail "no VLAN at the far end in dom0"
    far_without_offloads 'far ethtool' lab1.5 || fail "the VLAN at the far end in dom0 has offloads"
    far ip link set lab1.5 up && far ip addr add 10.75.0.3/24 dev lab1.5 && far ip -6 addr add fd75::3/64 dev lab1.5
    guest_must offloads_tagged
    # Back the same way: what the guest's far end asks for comes tagged, and is answered tagged.
    NET=75
    routes_to_far
    TAGGED='vlan and '
    within 30 "the guest answers in the VLAN" ping -c 1 -W 1 10.75.0.2
    within 30 "dom0's far end reaches the guest in the VLAN" far ping -c 1 -W 1 10.75.0.2
    within 30 "and by IPv6" far ping6 -c 1 -W 1 fd75::2
    within 30 "the guest's far end answers through the VLAN" ping6 -c 1 -W 1 fd78::2
}

# tagged_end: as before.
tagged_end() {
    NET=77
    routes_to_far
    ip link del xenbr0.5
    far ip link del lab1.5
    guest_must ip link del xn0.5
    TAGGED=
}

# The first packets bring the bridge to know where a new interface is.
far_end_answers() {
    within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
    within 30 "the guest's far end answers" ping -c 1 -W 1 10.78.0.2
}
