# shellcheck shell=sh source=/dev/null disable=SC2154 # some variables are those of offloads.sh
# offloads: ours with the kernel's netback under 8 settings of `ethtool -K` with every pair of those of both sides: TCP and UDP over IPv4 and IPv6 both ways, no wrong checksum behind either kernel, large segments whole where both ends take them; the same in a VLAN, where ours cuts and fills in and leaves netback neither; then with what one end does not ask for or does not offer.
# guests: pv
# part: features
# deadline: 600
. /lab/offloads.sh

# crosses_ours NAME
crosses_ours() {
    crosses "$1"
    nothing_dropped
}

# segments WAY V4 V6: whether large segments of this way ("to" the guest or "from" it) crossed, by the capture and by our driver's counters.
segments() {
    whole "$@"
    ring=rx
    [ "$1" = to ] || ring=tx
    check_if "$2" "${ring}_gso_tcpv4" "$(number "${ring}_gso_tcpv4" "$theirs")"
    check_if "$3" "${ring}_gso_tcpv6" "$(number "${ring}_gso_tcpv6" "$theirs")"
}

# setting NUMBER VIF TAP
setting() {
    offload "$VIF" "$2" >"$RESULTS/ethtool.txt" || fail "in dom0: $(cat "$RESULTS/ethtool.txt")"
    guest_must "offload xn0 $3"
    crosses_ours "$1"
    segments to "$(has "$2" tso)" "$(has "$2" tso6)"
    segments from "$(has "$3" tso)" "$(has "$3" tso6)"
    check_if "$(has "$2" tx)" "packets received with a blank checksum" "$(number rx_csum_blank "$theirs")"
    check_if "$(has "$3" tx)" "packets sent with a blank checksum" "$(number tx_csum_blank "$theirs")"
    tell_found "vif $2, TAP $3"
    stage "$SCENARIO: setting $1: vif $2, TAP $3"
}

# front_anew [OPTION...]: with all that the vif and the TAP can do.
front_anew() {
    guest_must offloads_front "$@"
    far_end_answers
}

echo 0 >/proc/sys/net/ipv6/conf/xenbr0/accept_dad
guest_start
far_ends
front_anew
far_ends_meet

each_setting
saw "$count settings of vif and TAP, TCP and UDP over IPv4 and IPv6 both ways: $all_sums right checksums behind the two kernels, 0 wrong"
saw "large segments whole just where vif or TAP have tso, tso6"
offload "$VIF" "$ALL" >"$RESULTS/ethtool.txt" || fail "in dom0: $(cat "$RESULTS/ethtool.txt")"

# In a VLAN dom0 cuts and fills in whatever it sends: netback's interface says of tagged packets that it takes none of it. What the
# guest leaves to its TAP is no business of netback's either: by its sources it looks for a blank checksum in packets of IP only,
# and drops one that is tagged. So ours cuts and fills in.
guest_must "offload xn0 $ALL"
tagged_begin
crosses_ours tagged
segments to no no
segments from no no
check "tagged packets received with a blank checksum" 0 "$(number rx_csum_blank "$theirs")"
check "packets sent with a blank checksum in a VLAN" 0 "$(number tx_csum_blank "$theirs")"
for family in 4 6; do check "blank checksums of IPv$family on the vif in a VLAN" 0 "$(number "blank_from$family" "$mine")"; done
tagged_cut=$(number tap_segments_cut "$theirs")
tagged_filled=$(number tap_checksums_filled "$theirs")
check_at_least "large segments that our driver cut in a VLAN" 1 "$tagged_cut"
check_at_least "checksums that our driver filled in in a VLAN" 32 "$tagged_filled"
tell_found "VLAN 5, vif $ALL, TAP $ALL"
guest_must "offload xn0 -"
crosses_ours tagged-plain
segments from no no
check "large segments that our driver cut of a TAP without offloads" 0 "$(number tap_segments_cut "$theirs")"
check "checksums that our driver filled in for a TAP without offloads" 0 "$(number tap_checksums_filled "$theirs")"
tell_found "VLAN 5, vif $ALL, TAP -"
guest_must "offload xn0 $ALL"
tagged_end
saw "in a VLAN the same: none wrong; $tagged_cut segments cut and $tagged_filled checksums filled in by us, none left to netback"
stage "$SCENARIO: tagged"

# Not asked for by us: dom0's kernel cuts, and fills in.
front_anew --no-gso
crosses_ours no-gso
segments to no no
segments from yes yes
check_at_least "packets received with a blank checksum" 1 "$(number rx_csum_blank "$theirs")"
tell_found "--no-gso"
front_anew --no-csum
crosses_ours no-csum
segments to no no
segments from yes yes
check "packets received with a blank checksum with --no-csum" 0 "$(number rx_csum_blank "$theirs")"
tell_found "--no-csum"

# Not offered by the backend: the guest's kernel cuts, and our driver fills in what the guest leaves blank.
offers feature-gso-tcpv6 0
front_anew
crosses_ours no-gso-tcpv6
segments to yes yes
segments from yes no
tell_found "no feature-gso-tcpv6"
offers feature-gso-tcpv6 1
offers feature-ipv6-csum-offload 0
front_anew
crosses_ours no-ipv6-csum
segments from yes no
check_at_least "checksums that our driver filled in" 32 "$(number tap_checksums_filled "$theirs")"
filled=$(number tap_checksums_filled "$theirs")
tell_found "no feature-ipv6-csum-offload"
offers feature-ipv6-csum-offload 1
offers feature-no-csum-offload 1
front_anew
crosses_ours no-csum-offload
segments from no no
check "packets sent with a blank checksum" 0 "$(number tx_csum_blank "$theirs")"
tell_found "feature-no-csum-offload"
saw "the same with --no-gso, --no-csum, and a backend without feature-gso-tcpv6, feature-ipv6-csum-offload ($filled checksums filled in by us) or checksum offload"
guest front_log >"$RESULTS/netfront.log"
cat "$RESULTS/offloads.txt"
guest_must front_stop
