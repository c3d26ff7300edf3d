# shellcheck shell=sh disable=SC2034,SC2154 # some variables are backend.sh's
# back: the kernel's netfront with our `netback-sim` in dom0, by grant copy and by mapping: loses no ping, carries a file unharmed.

# carry WAY: one backend, from the vif's start to its end, that reaches the guest's pages in this way.
carry() {
    BACKEND_NAME=$1
    saw "by $1"
    backend_start --reach "$1"
    guest_must up
    within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
    backend_check
    stage "$SCENARIO: connected, by $1"
    traffic_both 64
    backend_detach
    saw "$(counted_by_backend tx_packets) frames from the guest and $(counted_by_backend rx_packets) to it in $calls calls ($each a packet)"
}

guest_start 'vif=[]'
carry copy
check "calls that mapped or unmapped pages" 0 "$(counted_by_backend map_calls)"
carry map
check "batches that could not be mapped" 0 "$(counted_by_backend maps_refused)"
check "grant copy calls" 0 "$(counted_by_backend copy_calls)"
check_at_least "pieces of frames that were mapped" 10000 "$(counted_by_backend copies_mapped)"
