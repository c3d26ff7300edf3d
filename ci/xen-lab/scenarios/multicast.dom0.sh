# shellcheck shell=sh
# multicast: the kernel's netback filters for our driver: of the groups that are sent to only those arrive that the guest's TAP has joined, none that it has left, and all while it is promiscuous or the filter is off.
# guests: pv
# part: features

# Two groups of IPv4 and the solicited-node groups of two IPv6 addresses, by their Ethernet addresses.
JOINED=239.77.0.1
JOINED_MAC=01:00:5e:4d:00:01
OTHER=239.77.0.2
OTHER_MAC=01:00:5e:4d:00:02
JOINED6=ff02::1:ff77:1
JOINED6_MAC=33:33:ff:77:00:01
OTHER6=ff02::1:ff77:2
OTHER6_MAC=33:33:ff:77:00:02
COUNT=10

# sender_start: an interface whose other half is a port of the bridge. netback filters by what the kernel knows of a packet
# that it received on some interface; a packet that dom0 sends itself is not known as multicast there, and always passes.
sender_start() {
    modprobe veth || fail "modprobe veth"
    # That of an earlier scenario, which may have ended anywhere.
    ip link del lab0 2>/dev/null
    # busybox cannot name the second half; the kernel calls it veth0.
    if ! ip link add lab0 type veth || ! ip link set veth0 name lab1; then fail "no veth pair"; fi
    brctl addif xenbr0 lab0 || fail "brctl addif xenbr0 lab0"
    ip addr add 10.79.0.1/24 dev lab1
    if ! ip link set lab0 up || ! ip link set lab1 up; then fail "the veth pair does not come up"; fi
    # Or the bridge itself would send a group to those ports only where it saw somebody join.
    echo 0 >/sys/class/net/xenbr0/bridge/multicast_snooping
}

# send GROUP: nobody answers.
send() {
    case $1 in
        *:*) timeout 20 ping6 -c "$COUNT" -i 0.05 -W 1 -I lab1 "$1" >/dev/null 2>&1 ;;
        *) timeout 20 ping -c "$COUNT" -i 0.05 -W 1 -I lab1 "$1" >/dev/null 2>&1 ;;
    esac
}

# arrives JOINED OTHER WHEN: how many of each kind arrive in the guest when all four groups are sent to, COUNT each; and what
# netback says that it threw away.
arrives() {
    dropped=$(netback_dropped)
    guest_must multicast_record
    for group in "$JOINED" "$OTHER" "$JOINED6" "$OTHER6"; do send "$group"; done
    guest multicast_recorded >"$RESULTS/arrived.pcap" || fail "the capture in the guest does not end"
    dropped=$(($(netback_dropped) - dropped))
    check "packets to $JOINED $3" "$1" "$(captured "$JOINED_MAC")"
    check "packets to $JOINED6 $3" "$1" "$(captured "$JOINED6_MAC")"
    check "packets to $OTHER $3" "$2" "$(captured "$OTHER_MAC")"
    check "packets to $OTHER6 $3" "$2" "$(captured "$OTHER6_MAC")"
    # Others may be filtered besides: dom0's own kernel sends reports of its groups.
    check_at_least "packets that netback threw away $3" $((4 * COUNT - 2 * $1 - 2 * $2)) "$dropped"
    saw "$3: of $COUNT packets to each of 4 groups $1 of those joined and $2 of the others arrive"
    stage "$SCENARIO: $3"
}

captured() { tcpdump -r "$RESULTS/arrived.pcap" -Z root -n "ether dst $1 and not ether src 00:16:3e:00:00:02" 2>/dev/null | wc -l | tr -d ' '; }

netback_dropped() { cat "/sys/class/net/$VIF/statistics/tx_dropped"; }

# filters VALUE: what the driver has asked netback for in the store.
filters() { [ "$(xenstore-read "$NODE/device/vif/0/request-multicast-control")" = "$1" ]; }

# follows_no_more MORE-THAN: not so many any more. A driver that tells no number is no answer.
follows_no_more() { [ "$(guest front_number multicast_groups)" -le "$1" ]; }
# guest_follows MORE-THAN: so many groups.
guest_follows() { [ "$(guest front_number multicast_groups)" -gt "$1" ]; }

guest_start
check "feature-multicast-control of netback" 1 "$(xenstore-read "/local/domain/0/backend/vif/$DOMID/0/feature-multicast-control")"
check "feature-dynamic-multicast-control of netback" 1 "$(xenstore-read "/local/domain/0/backend/vif/$DOMID/0/feature-dynamic-multicast-control")"
sender_start

guest_must front_start --multicast-filter
guest_must front_wait
guest_must front_address
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
within 30 "the driver asks for the groups of the TAP" filters 1
# What every interface joins when it comes up, the last of it a moment later.
sleep 3
groups=$(guest front_number multicast_groups)
# The group of all hosts, of either family, has every interface that is up.
check_at_least "groups that the driver asks for before any is joined" 1 "$groups"
arrives 0 0 "before any is joined"

# IPv4 by a socket, IPv6 by the address that the group is made of.
guest_must "multicast_join $JOINED"
guest_must ip -6 addr add fd77::77:1/64 dev xn0
within 30 "the driver asks for two groups more" guest_follows $((groups + 1))
arrives "$COUNT" 0 "joined"

guest_must multicast_leave
guest_must ip -6 addr del fd77::77:1/64 dev xn0
within 30 "the driver asks for none of the two" follows_no_more "$groups"
arrives 0 0 "left again"

guest_must ip link set xn0 promisc on
within 30 "the driver lets netback send all" filters 0
arrives "$COUNT" "$COUNT" "promiscuous"
guest_must ip link set xn0 promisc off
within 30 "and filter again" filters 1
arrives 0 0 "not promiscuous any more"
check "requests that netback refused" 0 "$(guest front_number multicast_refused)"
ping_both 3
guest_must front_stop

guest_must front_start
guest_must front_wait
guest_must front_address
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
arrives "$COUNT" "$COUNT" "without --multicast-filter"
guest front_log >"$RESULTS/netfront.log"
guest_must front_stop
