# shellcheck shell=sh
# restart: our driver is stopped, started again, killed and started again; each time it connects and loses no ping.

backend_state() { xenstore-read "/local/domain/0/backend/vif/$DOMID/0/state"; }

# connect HOW: one start, up to pings that are answered.
connect() {
    saw "after $1"
    guest_must front_start
    guest_must front_wait
    guest_must front_address
    within 30 "the guest answers after $1" ping -c 1 -W 1 10.77.0.2
    ping_both 5
    check "state of the backend after $1" 4 "$(backend_state)"
    stage "$SCENARIO: connected after $1"
}

guest_start
connect "the first start"
guest_must front_stop
echo "the backend's state after the stop: $(backend_state)"
connect "a stop"
# A dead process says nothing: the backend still believes in its rings, and the next one must undo that.
guest_must front_kill
sleep 2
echo "the backend's state after the kill: $(backend_state)"
connect "a kill"
guest front_log >"$RESULTS/netfront.log"
