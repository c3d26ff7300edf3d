# shellcheck shell=sh source=/dev/null disable=SC2034,SC2154 # some variables are those of offloads.sh and backend.sh
# back-offloads: the kernel's netfront with our `netback-sim` under the same 8 settings as `offloads`: TCP and UDP over IPv4 and IPv6 both ways, no wrong checksum behind either kernel, large segments whole and checksums blank just where both ends take them; multicast unfiltered, since nobody asks; then with what the backend does not offer.
# guests: pv
# part: features
# deadline: 600
. /lab/offloads.sh

# back_anew NAME [OPTION...]: a backend of that name, from the vif's start.
back_anew() {
    BACKEND_NAME=$1
    shift
    backend_start "$@"
    guest_must back_front
    far_end_answers
    backend_check
}

# back_ends: takes the vif away; the backend understood every frame of the guest, and had words for every frame to it.
back_ends() {
    backend_detach
    for name in tx_refused rx_unsupported rx_expired rx_filtered faults peer_dropped; do
        check "$name of $BACKEND_RUN" 0 "$(counted_by_backend $name)"
    done
}

# crosses_back NAME
crosses_back() {
    crosses "$1"
    nothing_dropped
    # A large segment that does not say that its checksum is blank.
    check "$1: segments that the kernel's netfront had to repair" 0 "$(number rx_gso_checksum_fixup "$theirs")"
}

# blank WAY V4 V6: whether datagrams of this way passed the TAP with a blank checksum.
blank() {
    check_if "$2" "blank IPv4 checksums on the TAP $1 the guest" "$(number "blank_${1}4" "$mine")"
    check_if "$3" "blank IPv6 checksums on the TAP $1 the guest" "$(number "blank_${1}6" "$mine")"
}

# setting NUMBER TAP ETH0
setting() {
    offload "$VIF" "$2" >"$RESULTS/ethtool.txt" || fail "in dom0: $(cat "$RESULTS/ethtool.txt")"
    guest_must "offload eth0 $3"
    crosses_back "$1"
    whole to "$(has "$2" tso)" "$(has "$2" tso6)"
    whole from "$(has "$3" tso)" "$(has "$3" tso6)"
    blank to "$(has "$2" tx)" "$(has "$2" tx)"
    # The kernel's netfront cannot be told to fill in those of IPv4.
    blank from yes "$(has "$3" tx)"
    tell_found "TAP $2, eth0 $3"
    stage "$SCENARIO: setting $1: TAP $2, eth0 $3"
}

# multicast_passes: ten packets to a group of each family that nobody in the guest has joined.
multicast_passes() {
    check "feature-multicast-control of netback-sim" 1 "$(xenstore-read "/local/domain/0/backend/vif/$DOMID/0/feature-multicast-control")"
    ! xenstore-exists "$NODE/device/vif/0/request-multicast-control" || fail "the kernel's netfront asks for a multicast filter"
    # Or the bridge itself would send a group only where it saw somebody join.
    echo 0 >/sys/class/net/xenbr0/bridge/multicast_snooping
    guest_must multicast_record
    ping -c 10 -i 0.05 -W 1 -I xenbr0 239.77.0.2 >/dev/null 2>&1
    ping6 -c 10 -i 0.05 -W 1 -I xenbr0 ff02::1:ff77:2 >/dev/null 2>&1
    found=$(guest multicast_recorded 01:00:5e:4d:00:02 33:33:ff:77:00:02) || fail "the capture in the guest: $found"
    # shellcheck disable=SC2086 # two numbers
    set -- $found
    check_at_least "packets to a group of IPv4 that arrive" 10 "$1"
    check_at_least "packets to a group of IPv6 that arrive" 10 "$2"
    saw "multicast that nobody joined arrives, since the kernel's netfront asks for no filter"
}

echo 0 >/proc/sys/net/ipv6/conf/xenbr0/accept_dad
guest_start 'vif=[]'
far_ends
back_anew settings
far_ends_meet

each_setting
saw "$count settings of TAP and eth0, TCP and UDP over IPv4 and IPv6 both ways: $all_sums right checksums behind the two kernels, 0 wrong"
saw "large segments whole just where TAP or eth0 have tso, tso6"
saw "checksums blank just where they have tx, from eth0 those of IPv4 always"
multicast_passes
back_ends
check "requests about groups" 0 "$(counted_by_backend multicast_requests)"
check "checksums that the backend filled in" 0 "$(counted_by_backend checksums_filled)"

# Not offered: the guest's kernel cuts, and fills in.
back_anew no-gso --no-feature gso-tcpv4 --no-feature gso-tcpv6
crosses_back no-gso
# What our backend does not offer it does not send either.
whole to no no
whole from no no
tell_found "no feature-gso-tcpv4, -tcpv6"
back_ends
back_anew no-ipv6-csum --no-feature ipv6-csum-offload
crosses_back no-ipv6-csum
whole from yes no
blank from yes no
tell_found "no feature-ipv6-csum-offload"
back_ends
saw "the same with a backend without feature-gso-tcpv4 and -tcpv6, and without feature-ipv6-csum-offload"
cat "$RESULTS/offloads.txt"
