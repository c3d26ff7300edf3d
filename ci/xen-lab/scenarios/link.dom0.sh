# shellcheck shell=sh disable=SC2153 # NODE is talk.sh's
# link: ours follows what toolstacks write of a vif with the kernel's netback: `mtu`, `carrier`, `disconnect` and `speed` reach the TAP within a second, there and back, also with the cable out; an address that only the backend's directory has; `trusted` 0, with which everything is copied; `feature-xdp-headroom` is known, and never asked for.
# guests: pv
# part: features

MAC=00:16:3e:00:00:02
slowest=0
changes=0

# changed NODE VALUE FILE SAID STATUS: dom0 writes the node (`-` removes it), and the guest's interface says so in that file of
# /sys/class/net/xn0, and `netfront status` in these words.
changed() {
    guest_must "link_watch $1 $3 $4"
    if [ "$2" = - ]; then xenstore-rm "$1"; else xenstore-write "$1" "$2"; fi || fail "the store refuses $1 = $2"
    took=$(guest "link_took $3") || fail "${1##*/} = $2: $took"
    # A second is what is promised; it takes some hundredths.
    [ "$took" -le 1000 ] || fail "${1##*/} = $2: wanted 1000 ms at most until $3 was $4, found $took"
    echo "$(now) s: ok: ${1##*/} = $2: $3 was $4 after $took ms"
    guest_must "link_status '$5'"
    [ "$took" -le "$slowest" ] || slowest=$took
    changes=$((changes + 1))
}

# largest_frame WHEN BYTES: of a ping of 8000 bytes that the guest sends, which dom0 answers.
largest_frame() {
    record 100 /tmp/link.pcap "icmp and ether src $MAC"
    check "answers to a ping of 8000 bytes, $1" 1 "$(guest ping -c 1 -W 5 -s 8000 10.77.0.1 | pings_answered)"
    sleep 1
    stop_recording
    found=$(tcpdump -r /tmp/link.pcap -Z root -n -e 2>/dev/null | sed -n 's/.* length \([0-9]*\): .*/\1/p' | sort -n | tail -n 1)
    rm -f /tmp/link.pcap
    check "bytes of the largest frame, $1" "$2" "$found"
}

# silent: the guest does not answer. Linux may take a second to act on a carrier that is gone.
silent() { ! ping -c 1 -W 1 10.77.0.2; }

# headroom YES|NO VALUE: what `netfront status` knows of netback's offer to leave bytes free before packets; and nobody asks for them.
headroom() {
    check "feature-xdp-headroom of netback" "$2" "$(xenstore-read "$BACK/feature-xdp-headroom")"
    check "feature-xdp-headroom by status" "$1" "$(guest link_offer feature-xdp-headroom)"
    ! xenstore-exists "$FRONT/xdp-headroom" || fail "$FRONT/xdp-headroom is $(xenstore-read "$FRONT/xdp-headroom"): wanted none"
}

front_anew() {
    guest_must front_start
    guest_must front_wait
    guest_must front_address
    within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
}

guest_start
FRONT=$NODE/device/vif/0
BACK=/local/domain/0/backend/vif/$DOMID/0
# Who may write which node, for a reader of the results.
{ xenstore-ls -p "$FRONT" && xenstore-ls -p "$BACK"; } >"$RESULTS/permissions.txt"

# The address.
check "the address in the frontend's directory" "$MAC" "$(xenstore-read "$FRONT/mac")"
check "the address in the backend's directory" "$MAC" "$(xenstore-read "$BACK/mac")"
xenstore-rm "$FRONT/mac" || fail "the frontend's mac cannot be removed"
front_anew
check "the address of the interface without mac in the frontend's directory" "$MAC" "$(guest cat /sys/class/net/xn0/address)"
! xenstore-exists "$FRONT/mac" || fail "somebody wrote $FRONT/mac"
guest_must "link_status '$MAC, MTU 1500, carrier on'"
ping_both 3 >/dev/null
saw "the address is the backend's directory's"
headroom true 1
stage "$SCENARIO: connected"

# The MTU: xl writes it into the frontend's directory, where dom0 may change it.
changed "$FRONT/mtu" 9000 mtu 9000 'MTU 9000, carrier on'
largest_frame "with an MTU of 9000" 8042
changed "$FRONT/mtu" 1280 mtu 1280 'MTU 1280, carrier on'
# What lies in a fragment but the last is a multiple of 8 bytes: 1256, and 34 bytes of headers.
largest_frame "with an MTU of 1280" 1290
changed "$FRONT/mtu" 1500 mtu 1500 'MTU 1500, carrier on'
largest_frame "with an MTU of 1500" 1514
saw "mtu 9000, 1280 and 1500: frames of 8042, 1290 and 1514 bytes"

# The other way nothing is said: netif has no key by which a guest tells an MTU of its own.
written=$(xenstore-ls "$FRONT" && xenstore-ls "$BACK")
guest_must ip link set xn0 mtu 1400
sleep 1
check "what the store says after the guest chose an MTU" "$written" "$(xenstore-ls "$FRONT" && xenstore-ls "$BACK")"
check "the MTU that the guest chose" 1400 "$(guest cat /sys/class/net/xn0/mtu)"
changed "$FRONT/mtu" 1501 mtu 1501 'MTU 1501, carrier on'
changed "$FRONT/mtu" 1500 mtu 1500 'MTU 1500, carrier on'
saw "an MTU that the guest chooses holds until the store's next word"
stage "$SCENARIO: mtu"

# The cable: XAPI's key in the frontend's directory, the other in the backend's; each taken back by its value, and by its end.
for node in "$FRONT/disconnect" "$BACK/carrier"; do
    case $node in
        */disconnect) out=1 in=0 ;;
        *) out=0 in=1 ;;
    esac
    for back in "$in" -; do
        changed "$node" "$out" carrier 0 'MTU 1500, carrier off'
        within 10 "the guest does not answer with ${node##*/} = $out" silent
        changed "$node" "$back" carrier 1 'MTU 1500, carrier on'
        within 30 "the guest answers again" ping -c 1 -W 1 10.77.0.2
    done
done
# The one out, the other in: out.
xenstore-write "$BACK/carrier" 1
changed "$FRONT/disconnect" 1 carrier 0 'carrier off'
changed "$FRONT/mtu" 1400 mtu 1400 'MTU 1400, carrier off'
changed "$FRONT/mtu" 1500 mtu 1500 'MTU 1500, carrier off'
changed "$FRONT/disconnect" 0 carrier 1 'carrier on'
saw "disconnect and carrier: out and in, each twice, and with the cable out the MTU is followed too"
stage "$SCENARIO: the cable"

# The speed, in the words of XAPI's driver for Windows; -1 is Linux' for one that nobody knows.
changed "$FRONT/speed" 10G speed 10000 'carrier on, 10 Gbit/s'
changed "$FRONT/speed" 100M speed 100 'carrier on, 100 Mbit/s'
changed "$FRONT/speed" 25 speed 25000 'carrier on, 25 Gbit/s'
changed "$FRONT/speed" - speed -1 'carrier on$'
saw "speed 10G, 100M and 25"
ping_both 3 >/dev/null
saw "$changes changes, the slowest $slowest ms after the guest was told of it"

# Trust: read when the driver connects.
tcp_both 1
check_at_least "large packets lent by a driver that trusts" 1 "$(guest front_number rx_large)"
guest_must front_stop
check "trusted, as xl writes it" 1 "$(xenstore-read "$FRONT/trusted")"
xenstore-write "$FRONT/trusted" 0
# A driver before ours may have asked, and a backend need not offer it.
xenstore-write "$FRONT/xdp-headroom" 256
offers feature-xdp-headroom 0
front_anew
headroom false 0
saw "feature-xdp-headroom 1 and 0: status says so; xdp-headroom is never written, and one that was left there is removed"
guest_must "link_status 'everything is copied (untrusted)'"
tcp_both 1
check "large packets lent with trusted = 0" 0 "$(guest front_number rx_large)"
check_at_least "packets copied whole" 100 "$(guest front_number rx_small)"
saw "trusted 0: everything is copied"

# A cable that is out when the driver starts.
guest_must front_stop
xenstore-write "$FRONT/disconnect" 1
guest_must front_start
within 30 "the driver says that the cable is out" guest "link_status 'carrier off'"
within 10 "the interface has the vif's address all the same" guest "grep -q $MAC /sys/class/net/xn0/address"
guest_must ip link set xn0 up
changed "$FRONT/disconnect" 0 carrier 1 'carrier on'
guest_must front_address
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
saw "a cable that is out when the driver starts: the address all the same"
guest front_log >"$RESULTS/netfront.log"
guest_must front_stop
