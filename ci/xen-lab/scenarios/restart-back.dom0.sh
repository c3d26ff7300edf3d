# shellcheck shell=sh
# restart-back: the backend goes and comes back under our running driver: detached and attached, unbound and bound, its module reloaded; then ours, killed and stopped.

BACKEND=/local/domain/0/backend/vif

answers() { within 30 "the guest answers after $1" ping -c 1 -W 1 10.77.0.2; }

# back_again HOW: the guest's driver, which was not touched, carries packets again.
back_again() {
    answers "$1"
    ping_both 5 >/dev/null
    check "state of the backend after $1" 4 "$(xenstore-read "$BACKEND/$DOMID/0/state")"
    guest_must front_alive
    saw "$1"
    stage "$SCENARIO: connected after $1"
}

# plug: what the toolstack's script does for a vif that the kernel makes anew; udev would call it.
plug() {
    within 10 "dom0 has $VIF" [ -e "/sys/class/net/$VIF" ]
    vif=$VIF XENBUS_PATH=backend/vif/$DOMID/0 /etc/xen/scripts/vif-lab online
}

# unplug: the kernel's netback lets go of the vif. It leaves the state Connected behind, so the guest notices nothing until
# netback is back.
unplug() {
    echo "vif-$DOMID-0" >/sys/bus/xen-backend/drivers/vif/unbind || fail "netback cannot be unbound from vif-$DOMID-0"
    within 10 "$VIF is gone" [ ! -e "/sys/class/net/$VIF" ]
}

# dom0_warnings: but for what netback says when it comes back, finds the guest's state Connected of the connection before, and
# begins to map that one's rings while the guest leaves it: then the pages are freed by now. It begins again by itself.
dom0_warnings() {
    warnings=$(kernel_warnings | tr '|' '\n' | grep -vE "vif vif-$DOMID-0: [0-9]+ mapping (in shared page|shared-frames)" | tr '\n' '|')
    warnings=${warnings%|}
    echo "${warnings:-none}"
}

guest_start
# Both kernels' logs are about this scenario alone.
kernel_log_from_here
guest kernel_log_from_here
guest_must front_start
guest_must front_wait
guest_must front_address
answers "the first start"

for round in 1 2 3; do
    timeout 40 xl network-detach guest 0 || fail "xl network-detach"
    within 10 "the backend's folder is gone" sh -c "! xenstore-exists $BACKEND/$DOMID/0/state"
    timeout 40 xl network-attach guest mac=00:16:3e:00:00:02 bridge=xenbr0 script=/etc/xen/scripts/vif-lab ||
        fail "xl network-attach"
    back_again "detach and attach $round"
done

unplug
echo "vif-$DOMID-0" >/sys/bus/xen-backend/drivers/vif/bind || fail "netback cannot be bound to vif-$DOMID-0"
plug
back_again "unbind and bind of netback"

# It holds itself as long as it has a vif.
unplug
modprobe -r xen-netback || fail "the kernel's netback cannot be unloaded"
[ ! -e /sys/bus/xen-backend/drivers/vif ] || fail "netback's module is still there"
modprobe xen-netback || fail "the kernel's netback cannot be loaded again"
plug
back_again "a reload of netback's module"

timeout 40 xl network-detach guest 0 || fail "xl network-detach"
backend_start
back_again "netback-sim in netback's place"
# shellcheck disable=SC2154 # set by backend_start
kill -KILL "$backend"
wait "$backend" 2>/dev/null
backend_again
back_again "a kill of netback-sim"
kill -TERM "$backend"
wait "$backend"
check "exit status of netback-sim" 0 $?
backend_again
back_again "a stop of netback-sim"
guest front_log >"$RESULTS/netfront.log"
check "lines of level warning or above in the guest's log" none "$(guest kernel_warnings)"
check "lines of level warning or above in dom0's log" none "$(dom0_warnings)"
guest_must front_stop
