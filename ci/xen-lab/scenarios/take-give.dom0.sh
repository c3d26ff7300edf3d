# shellcheck shell=sh
# take-give: the vif goes from the guest kernel's netfront to ours and back, 20 times, and works after each; refused while it is in use.

ROUNDS=20
guest_start
guest_must up
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
guest_must refused_in_use
guest kernel_log_from_here
GUEST_DEADLINE=$((ROUNDS * 12)) guest "take_and_give $ROUNDS" >"$RESULTS/rounds.txt"
ended=$?
cat "$RESULTS/rounds.txt"
guest front_log >"$RESULTS/netfront.log"
check "rounds without a failure (the last line: $(tail -n 1 "$RESULTS/rounds.txt"))" 0 "$ended"
check "times that ours carried pings" "$ROUNDS" "$(grep -c 'ours works' "$RESULTS/rounds.txt")"
check "times that the kernel's carried pings" "$ROUNDS" "$(grep -c "the kernel's works" "$RESULTS/rounds.txt")"
ping_both 5
tcp_both 2
check "lines of level warning or above in the guest's log" none "$(guest kernel_warnings)"
saw "$ROUNDS of $ROUNDS rounds, one of them with ours killed, one with the kernel's driver unloaded; refused while eth0 was up"
