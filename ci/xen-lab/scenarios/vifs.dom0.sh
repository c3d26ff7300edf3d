# shellcheck shell=sh
# vifs: 50 vifs of one guest, attached by xl, each driven by a process of its own, pinged, and detached while it is driven: nothing is left in the guest, in dom0 or in the store.
# guests: pv
# part: features
# deadline: 900

# shellcheck source=/dev/null
. /lab/steps.sh

VIFS=${VIFS:-50}
LAST=$((VIFS - 1))
# Pages for one vif: two pools of the smallest size and two rings.
PAGES=66

attach_all() {
    for vif in $(seq 1 "$LAST"); do
        timeout 60 xl network-attach guest "mac=00:16:3e:00:01:$(printf %02x "$vif")" bridge=xenbr0 script=/etc/xen/scripts/vif-lab ||
            fail "xl network-attach, number $vif"
    done
}

# in_dom0: what vifs may leave here: interfaces, interrupts, nodes of the store for both ends.
in_dom0() {
    find /sys/class/net -name 'vif*' | wc -l
    grep -c " vif$DOMID\." /proc/interrupts
    for folder in "/local/domain/0/backend/vif/$DOMID" "$NODE/device/vif" "/libxl/$DOMID/device/vif"; do
        xenstore-ls -f "$folder" 2>/dev/null
    done | grep -c '/vif/[^ ]*/'
}

available() { awk '/^MemAvailable:/ { print $2 }' /proc/meminfo; }

# of_memory WHERE BEFORE AFTER: the kernels keep what they may need again; a vif that is left takes a MiB or more in dom0.
of_memory() { check_at_least "KiB of memory available $1, of $2 before, less 16 MiB" $(($2 - 16384)) "$3"; }

guest_start 'memory=896'
guest_must "front_limit $((PAGES * VIFS))"
# The first one, once: what is made once for all vifs is there then.
step "the first vif" 'vifs_start 0 0 && vifs_pinged 0 0 && vifs_stop 0'
guest left >"$RESULTS/left-before.txt"
guest_available=$(guest available)
dom0_available=$(available)

stage "$SCENARIO: $VIFS vifs are attached and driven"
attach_all &
attaching=$!
from=0
while [ "$from" -le "$LAST" ]; do
    to=$((from + 9))
    [ "$to" -le "$LAST" ] || to=$LAST
    step "vifs $from to $to" "vifs_start $from $to"
    from=$((to + 1))
done
wait "$attaching" || fail "not all vifs could be attached"
check "vifs in dom0" "$VIFS" "$(find /sys/class/net -name 'vif*' | wc -l)"
connected=0
for vif in $(seq 0 "$LAST"); do
    [ "$(xenstore-read "/local/domain/0/backend/vif/$DOMID/$vif/state")" != 4 ] || connected=$((connected + 1))
done
check "backends that are connected" "$VIFS" "$connected"
step "each is pinged" "vifs_pinged 0 $LAST"
memory=$(guest vifs_memory)
saw "$VIFS vifs, each with a process: $((${memory% *} / VIFS)) KiB of its own each, ${memory#* } KiB all together"

stage "$SCENARIO: detached while they are driven"
for vif in $(seq 0 "$LAST"); do
    timeout 60 xl network-detach guest "$vif" || fail "xl network-detach guest $vif"
done
within 30 "no backend is left in dom0" sh -c '! ls -d /sys/class/net/vif* 2>/dev/null | grep -q .'
step "the drivers end" "vifs_stop $LAST"
guest logs >"$RESULTS/logs.txt"
guest left >"$RESULTS/left-after.txt"
check "event channels, descriptors, sockets and TAPs left in the guest" "0 0 0 0" "$(tr '\n' ' ' <"$RESULTS/left-after.txt" | sed 's/ $//')"
check "interfaces, interrupts and nodes left in dom0" "0 0 0" "$(in_dom0 | tr '\n' ' ' | sed 's/ $//')"
of_memory "in the guest" "$guest_available" "$(guest available)"
of_memory "in dom0" "$dom0_available" "$(available)"
saw "nothing left: event channels, descriptors, sockets, TAPs, interfaces, nodes; memory as before"

# What gntalloc counts as shared can be seen by its limit alone: with that of one vif there must be room for one.
guest_must "front_limit $PAGES"
guest_must front_limit_locked
timeout 60 xl network-attach guest mac=00:16:3e:00:00:02 bridge=xenbr0 script=/etc/xen/scripts/vif-lab || fail "xl network-attach at the end"
first=$(xenstore-list "$NODE/device/vif" | head -n 1)
step "another one, at a limit of $PAGES pages" "vifs_start $first $first && vifs_pinged $first $first"
check "pages of its pools" 64 "$(guest "netfront stats --vif $first" | sed -n 's/^ *pool_granted: //p')"
saw "all $((PAGES * VIFS)) pages can be shared again"
