# shellcheck shell=sh
# limits: gntalloc's limit too small, a backend without feature-sg, rx-copy or split event channels: connects in the best way left, or says exactly why not.

BACKEND=/local/domain/0/backend/vif

# works WHAT: it carries pings and TCP both ways.
works() {
    guest_must front_wait
    guest_must front_address
    within 30 "the guest answers: $1" ping -c 1 -W 1 10.77.0.2
    ping_both 5 >/dev/null
    tcp_both 2 >/dev/null
    stage "$SCENARIO: works: $1"
}

backend_waits() { [ "$(xenstore-read "$BACKEND/$DOMID/0/state")" = 2 ]; }
stops() { guest_must front_stop; }

# offers KEY VALUE: as a backend that lacks it would. netback wrote its features when it came to InitWait,
# and does so again when it comes back there: after the last stop has settled.
offers() {
    within 10 "the backend is in InitWait" backend_waits
    xenstore-write "$BACKEND/$DOMID/0/$1" "$2"
}

guest_start
# 1: may raise it, does, and says so.
guest_must "front_limit 300"
guest_must front_start
works "a limit of 300 that it may raise"
guest_must "front_said 'raised gntalloc.s limit from 300'"
check_at_least "gntalloc's limit after that" 770 "$(guest front_limit)"
stops
# 2: may not: smaller pools, and it says so.
guest_must "front_limit 400"
guest_must front_limit_locked
guest_must front_start
works "a limit of 400 that it may not raise"
check "gntalloc's limit after that" 400 "$(guest front_limit)"
pool=$(guest front_pool)
[ "$pool" -le 400 ] && [ "$pool" -ge 300 ] || fail "pools at a limit of 400: wanted 300 to 400 pages, found $pool"
guest_must "front_said 'limit'"
saw "a limit of 400: works with $pool pages"
stops
# 3: nothing to work with: exactly why, and the command that helps.
guest_must front_limit_unlocked
guest_must "front_limit 1"
guest_must front_limit_locked
guest front_refused >"$RESULTS/refused.txt"
check "exit status of run with a limit of 1 page" 1 $?
cat "$RESULTS/refused.txt"
grep -q 'xen_gntalloc/parameters/limit' "$RESULTS/refused.txt" || fail "run with a limit of 1 page: wanted the name of the limit, found: $(tail -n 1 "$RESULTS/refused.txt")"
saw "a limit of 1: says what to raise"
guest_must front_limit_unlocked
guest_must "front_limit 1024"

# A backend without ...
xenstore-write "$BACKEND/$DOMID/0/feature-split-event-channels" 0
guest_must front_start
works "no split event channels"
check "event-channel in the frontend's folder" yes "$(xenstore-exists "$NODE/device/vif/0/event-channel" && echo yes)"
check "event-channel-tx in the frontend's folder" no "$(xenstore-exists "$NODE/device/vif/0/event-channel-tx" || echo no)"
saw "no split event channels: one for both directions"
stops
offers feature-sg 0
guest_must front_start --no-sg
works "no scatter-gather"
check "feature-sg of the frontend" 0 "$(xenstore-read "$NODE/device/vif/0/feature-sg")"
saw "no scatter-gather: works with single slots"
stops
offers feature-rx-copy 0
guest front_refused >"$RESULTS/no-rx-copy.txt"
status=$?
cat "$RESULTS/no-rx-copy.txt"
check "exit status of run without feature-rx-copy" 1 "$status"
grep -q 'does not offer feature-rx-copy' "$RESULTS/no-rx-copy.txt" || fail "run without feature-rx-copy: wanted its name, found: $(tail -n 1 "$RESULTS/no-rx-copy.txt")"
saw "no rx-copy: says so"
guest front_log >"$RESULTS/netfront.log"
