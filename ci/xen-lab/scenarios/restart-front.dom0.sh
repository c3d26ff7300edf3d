# shellcheck shell=sh
# restart-front: our driver is killed with -9 during traffic both ways and started again, 20 times, with gntalloc's limit at one pool and its rings.

ROUNDS=20
guest_start
# Both kernels' logs are about this scenario alone.
kernel_log_from_here
guest kernel_log_from_here
# What is pushed into it comes back: traffic both ways as long as the guest sends.
nc -ll -p 5002 -e cat 2>/dev/null &

# A pool that may not grow takes the same number of pages each time, and that is the limit.
guest_must front_start --rx-limit 512
guest_must front_wait
guest_must front_address
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
granted=$(guest front_number shared_pages)
pool=$(guest front_number pool_granted)
check_at_least "pages of the first start's pool" 768 "$pool"
check "pages beside the pool: rings, control ring and its list" 4 $((granted - pool))
guest_must "front_limit $granted"
stage "$SCENARIO: gntalloc's limit is $granted pages; $ROUNDS kills"

GUEST_DEADLINE=$((ROUNDS * 12)) guest "front_rounds $ROUNDS $pool" >"$RESULTS/rounds.txt"
ended=$?
cat "$RESULTS/rounds.txt"
guest front_log >"$RESULTS/netfront.log"
check "kills that were survived (the last line: $(tail -n 1 "$RESULTS/rounds.txt"))" 0 "$ended"
check "rounds" "$ROUNDS" "$(grep -c '^round .* connected' "$RESULTS/rounds.txt")"
slowest=$(sed -n 's/^round .* connected after \([0-9]*\) ms.*/\1/p' "$RESULTS/rounds.txt" | sort -n | tail -n 1)
[ "$slowest" -le 5000 ] || fail "the slowest of $ROUNDS starts took $slowest ms, wanted 5000 at most"
check "gntalloc's limit at the end" "$granted" "$(guest front_limit)"
check "state of the backend" 4 "$(xenstore-read "/local/domain/0/backend/vif/$DOMID/0/state")"
ping_both 5
guest_must front_stop
check "lines of level warning or above in the guest's log" none "$(guest kernel_warnings)"
# That so many messages were left out is a warning also where the messages are for debugging and none is printed, as netback's are of
# pages that a killed driver has taken along. Of warnings the first ten in five seconds would be here.
warnings=$(kernel_warnings | tr '|' '\n' | grep -vE '^$|net_ratelimit: [0-9]+ callbacks suppressed' | tr '\n' '|')
check "lines of level warning or above in dom0's log" none "$(echo "${warnings:-none}" | sed 's/|$//')"
saw "$ROUNDS of $ROUNDS kills survived, the slowest start $slowest ms; each pool whole ($pool pages) at a limit of $granted; no warning in either kernel's log"
