# shellcheck shell=sh disable=SC2034 # calls, packets and each are for scenarios
# Our backend in dom0, in the place of the kernel's.

# backend_start [OPTION...]: attaches a vif to the guest that runs, with `netback-sim` behind it. BACKEND_NAME goes
# into the names of its files, so that a second one does not overwrite what the first one said.
backend_start() {
    BACKEND_RUN=netback-sim${BACKEND_NAME:+-$BACKEND_NAME}
    # Two backends would both take the vif. collect loads it again.
    [ ! -e /sys/bus/xen-backend/drivers/vif ] || modprobe -r xen-netback || fail "the kernel's netback cannot be unloaded"
    netback-sim serve --xen --domid "$DOMID" --handle 0 --tap "$VIF" --json "$@" \
        >"$RESULTS/$BACKEND_RUN.json" 2>"$RESULTS/$BACKEND_RUN.log" &
    backend=$!
    # xl waits a few seconds for InitWait, then for the script that puts the TAP on the bridge.
    timeout 40 xl network-attach guest mac=00:16:3e:00:00:02 bridge=xenbr0 script=/etc/xen/scripts/vif-lab ||
        fail "xl network-attach; netback-sim says: $(tail -n 1 "$RESULTS/$BACKEND_RUN.log")"
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
counted_by_backend() { sed -n 's/^ *"'"$1"'": \([0-9]*\).*/\1/p' "$RESULTS/$BACKEND_RUN.json"; }

# backend_ended: waits for its end, and looks at what it counted.
backend_ended() {
    # One that does not end would take the scenario's whole time.
    (sleep 30 && kill -KILL "$backend") &
    guard=$!
    wait "$backend"
    status=$?
    kill "$guard" 2>/dev/null
    check "exit status of netback-sim" 0 "$status"
    cat "$RESULTS/$BACKEND_RUN.log"
    check "connections that netback-sim made" 1 "$(counted_by_backend connects)"
    check "frames from the guest that could not be copied" 0 "$(counted_by_backend tx_copy_failed)"
    check "frames to the guest that could not be copied" 0 "$(counted_by_backend rx_copy_failed)"
    packets=$(($(counted_by_backend tx_packets) + $(counted_by_backend rx_packets)))
    # Calls of the data path that reach for the guest's pages: grant copies, maps and unmaps.
    calls=$(($(counted_by_backend copy_calls) + $(counted_by_backend map_calls)))
    check_at_least "packets that crossed" 1 "$packets"
    # shellcheck disable=SC2034 # for scenarios
    each=$(awk -v calls="$calls" -v packets="$packets" 'BEGIN { printf "%.5f", calls / packets }')
}

# backend_stop: ends it in order.
backend_stop() {
    kill -TERM "$backend"
    backend_ended
}

# backend_detach: takes the vif away, as an administrator does; the backend ends by itself.
backend_detach() {
    timeout 40 xl network-detach guest 0 || fail "xl network-detach"
    backend_ended
}
