# shellcheck shell=sh
# Our backend in dom0, in the place of the kernel's.

# backend_start: attaches a vif to the guest that runs, with `netback-sim` behind it.
backend_start() {
    # Two backends would both take the vif. collect loads it again.
    modprobe -r xen-netback || fail "the kernel's netback cannot be unloaded"
    netback-sim serve --xen --domid "$DOMID" --handle 0 --tap "$VIF" --json \
        >"$RESULTS/netback-sim.json" 2>"$RESULTS/netback-sim.log" &
    backend=$!
    # xl waits a few seconds for InitWait, then for the script that puts the TAP on the bridge.
    timeout 40 xl network-attach guest mac=00:16:3e:00:00:02 bridge=xenbr0 script=/etc/xen/scripts/vif-lab ||
        fail "xl network-attach; netback-sim says: $(tail -n 1 "$RESULTS/netback-sim.log")"
}

# backend_again: starts it anew on the vif that is there, and does what the toolstack's script did: a TAP goes with its process.
backend_again() {
    netback-sim serve --xen --domid "$DOMID" --handle 0 --tap "$VIF" --json \
        >"$RESULTS/netback-sim.json" 2>>"$RESULTS/netback-sim.log" &
    backend=$!
    within 10 "dom0 has $VIF" [ -e "/sys/class/net/$VIF" ]
    vif=$VIF XENBUS_PATH=backend/vif/$DOMID/0 /etc/xen/scripts/vif-lab online
}

# backend_check: it is what the guest is connected to.
backend_check() {
    check "state of the backend" 4 "$(xenstore-read "/local/domain/0/backend/vif/$DOMID/0/state")"
    [ ! -e /sys/bus/xen-backend/drivers/vif ] || fail "the kernel's netback is loaded"
}

# counted_by_backend NAME: out of its report.
counted_by_backend() { sed -n 's/^ *"'"$1"'": \([0-9]*\).*/\1/p' "$RESULTS/netback-sim.json"; }

# backend_stop: ends it in order, and looks at what it counted.
backend_stop() {
    kill -TERM "$backend"
    wait "$backend"
    check "exit status of netback-sim" 0 $?
    cat "$RESULTS/netback-sim.log"
    check "connections that netback-sim made" 1 "$(counted_by_backend connects)"
    check "frames from the guest that could not be copied" 0 "$(counted_by_backend tx_copy_failed)"
    check "frames to the guest that could not be copied" 0 "$(counted_by_backend rx_copy_failed)"
    saw "$(counted_by_backend tx_packets) frames from the guest and $(counted_by_backend rx_packets) to it in $(counted_by_backend copy_calls) copy calls"
}
