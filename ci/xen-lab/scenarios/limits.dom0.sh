# shellcheck shell=sh
# limits: gntalloc's limit too small, a backend without feature-sg, rx-copy or split event channels: connects in the best way left, or says exactly why not.

# works WHAT: it carries pings and TCP both ways.
works() {
    guest_must front_wait
    guest_must front_address
    within 30 "the guest answers: $1" ping -c 1 -W 1 10.77.0.2
    ping_both 5 >/dev/null
    tcp_both 2 >/dev/null
    stage "$SCENARIO: works: $1"
}

stops() { guest_must front_stop; }

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
check_at_least "pages of its pools at a limit of 400" 300 "$pool"
[ "$pool" -le 400 ] || fail "pools at a limit of 400: found $pool pages"
guest_must "front_said 'pools start smaller'"
saw "a limit of 400: works with $pool pages"
stops
# 3: nothing to work with: exactly why, and the command that helps.
guest_must front_limit_unlocked
guest_must "front_limit 1"
guest_must front_limit_locked
guest front_refused >"$RESULTS/refused.txt"
check "exit status of run with a limit of 1 page" 78 $?
cat "$RESULTS/refused.txt"
grep -q 'xen_gntalloc/parameters/limit' "$RESULTS/refused.txt" || fail "run with a limit of 1 page: wanted the name of the limit, found: $(tail -n 1 "$RESULTS/refused.txt")"
saw "a limit of 1: says what to raise"
guest_must front_limit_unlocked
guest_must "front_limit 1024"

# A backend without ...
offers feature-split-event-channels 0
guest_must front_start
works "no split event channels"
check "event-channel in the frontend's folder" yes "$(xenstore-exists "$NODE/device/vif/0/event-channel" && echo yes)"
check "event-channel-tx in the frontend's folder" no "$(xenstore-exists "$NODE/device/vif/0/event-channel-tx" || echo no)"
saw "no split event channels: one for both directions"
stops
offers feature-sg 0
guest_must front_start
works "no scatter-gather"
sent=$(guest front_numbers tx_packets tx_slots)
check_at_least "packets sent without scatter-gather" 100 "${sent% *}"
check "slots that they took" "${sent% *}" "${sent#* }"
saw "no scatter-gather: works, a slot for each packet sent"
stops
offers feature-rx-copy 0
guest front_refused >"$RESULTS/no-rx-copy.txt"
check "exit status of run without feature-rx-copy" 1 $?
cat "$RESULTS/no-rx-copy.txt"
grep -q 'does not offer feature-rx-copy' "$RESULTS/no-rx-copy.txt" || fail "run without feature-rx-copy: wanted its name, found: $(tail -n 1 "$RESULTS/no-rx-copy.txt")"
saw "no rx-copy: says so"
guest front_log >"$RESULTS/netfront.log"
