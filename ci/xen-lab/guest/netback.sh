# shellcheck shell=sh
# The kernel's netback: what it offers of a vif, and how to have it say that anew.

NETBACK_QUEUES=/sys/module/xen_netback/parameters/max_queues

# offer QUEUES: what netback offers of each vif that it gets from now on; its own default is dom0's processors.
offer() {
    echo "$1" >"$NETBACK_QUEUES" || fail "netback's parameter max_queues cannot be written"
    check "queues that netback is to offer" "$1" "$(cat "$NETBACK_QUEUES")"
}

# offers KEY VALUE: as a backend that lacks it would. netback writes what it offers when it gets the vif and
# never again, so what is written here stays.
offers() { xenstore-write "/local/domain/0/backend/vif/$DOMID/0/$1" "$2"; }

# vif_again: the vif is taken away and given again, so that netback says anew what it offers.
vif_again() {
    timeout 40 xl network-detach guest 0 || fail "xl network-detach"
    within 10 "the backend's folder is gone" sh -c "! xenstore-exists /local/domain/0/backend/vif/$DOMID/0/state"
    timeout 40 xl network-attach guest mac=00:16:3e:00:00:02 bridge=xenbr0 script=/etc/xen/scripts/vif-lab ||
        fail "xl network-attach"
}
