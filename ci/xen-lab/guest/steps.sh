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

# under_one_session: taken over, confirmed, and given back by `netfront stop`, all under the TCP session that was started before
# (session_start), which ends here.
under_one_session() {
    step "taken over under a session" 'take_over && hang_up && netfront confirm --vif 0 && session_moves'
    saw "a TCP session lives through the take-over"
    ping_both 5
    step "given back under the same session" 'stop && same_as_before && session_moves && session_stop'
    guest cat /run/lab/session.txt >"$RESULTS/session.txt"
    saw "the same session through the giving back by netfront stop; the interface is what it was"
}
