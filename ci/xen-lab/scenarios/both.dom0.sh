# shellcheck shell=sh disable=SC2154 # some variables are backend.sh's
# both: ours on both ends with grant mappings: loses no ping, carries a file unharmed, next to no hypercall a packet reaches for its pages.

guest_start 'vif=[]'
backend_start
guest_must front_start
guest_must front_wait
guest_must front_address
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
backend_check
stage "$SCENARIO: connected"
traffic_both 64
guest_must front_stats >"$RESULTS/stats-at-end.json"
# The sum: each queue has its own, further in.
mapped=$(sed -n 's/^    "gref_mapped": \([0-9]*\).*/\1/p' "$RESULTS/stats-at-end.json")
check_at_least "pages that the backend keeps mapped, as netfront counts them" 768 "$mapped"
guest front_log >"$RESULTS/netfront.log"
guest_must front_stop
backend_stop
check_at_least "packets that crossed" 10000 "$packets"
check_at_least "pieces of frames that went through a mapping that is kept" 10000 "$(counted_by_backend copies_kept)"
# One call in a hundred packets: what passed before the pages were mapped.
[ "$((calls * 100))" -lt "$packets" ] || fail "calls to reach the guest's pages: wanted fewer than 0.01 a packet, found $each"
all=$(awk -v calls="$(counted_by_backend hypercalls)" -v packets="$packets" 'BEGIN { printf "%.5f", calls / packets }')
saw "$mapped pages mapped; hypercalls a packet by our own count of ioctls: $each to reach the guest's pages ($calls for $packets packets), $all with events and everything else"
