# shellcheck shell=sh
# take-over: an interface in use: probe mends what is missing, eth0 is taken over under a TCP session and comes back on stop, without confirmation, after kill -9.
# guests: pv

# shellcheck source=/dev/null
. /lab/steps.sh

guest_start
guest_must as_delivered
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
guest_must kernel_log_from_here
guest_must probed
saw "probe --fix loads modules and raises the limit"
guest_must remember

step "a session" 'session_start 900 -b 10M'
under_one_session
step "ended by SIGTERM" 'take_over --confirm-within 0 && terminated && same_as_before'
step "not confirmed" 'take_over --confirm-within 15 && ended_with 75 && same_as_before'
step "the driver stands still" 'take_over --confirm-within 15 && driver_stopped && same_as_before'
step "the driver is killed" 'take_over --confirm-within 0 && driver_killed && same_as_before'
step "the guardian is killed" 'take_over && guardian_killed && same_as_before'
step "both are killed" 'take_over && both_killed && same_as_before'
saw "back by itself: not confirmed, driver stopped with SIGSTOP, driver killed, guardian killed; both killed: reset and give"
guest front_log >"$RESULTS/netfront.log"
ping_both 5
tcp_both 2
check "lines of level warning or above in the guest's log" none "$(guest kernel_warnings)"
