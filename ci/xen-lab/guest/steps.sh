# shellcheck shell=sh
# What the scenarios of a take-over share, in dom0: steps in the guest, and those under a session.

# step WHAT COMMAND: in the guest, with 120 s; its logs come out, whatever fails after. The guest's script has `logs`.
step() {
    stage "$SCENARIO: $1"
    shift
    export GUEST_DEADLINE=120
    guest "$@"
    # Not `status`: that is a variable of `guest`, which the next one sets.
    ended=$?
    unset GUEST_DEADLINE
    if [ "$ended" != 0 ]; then
        guest logs >"$RESULTS/logs.txt"
        fail "in the guest, '$*' ended with $ended: see log.txt and logs.txt"
    fi
}

# under_sessions: taken over, confirmed and given back, each under a TCP session.
under_sessions() {
    step "taken over under a session" 'session_start 20 && take_over && hang_up && netfront confirm --vif 0 && session_end'
    guest cat /run/lab/session.txt >"$RESULTS/session-take-over.txt"
    saw "a TCP session lives through the take-over"
    ping_both 5
    step "given back under a session" 'session_start 15 && stop && same_as_before && session_end'
    guest cat /run/lab/session.txt >"$RESULTS/session-give-back.txt"
    saw "and through the giving back; the interface is what it was"
}
