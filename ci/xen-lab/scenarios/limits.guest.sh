# shellcheck shell=sh source=/dev/null
# limits, the guest's side: the same driver as in the scenario `front`, and gntalloc's limit.
. /lab/scenarios/restart-front.guest.sh

LIMIT=/sys/module/xen_gntalloc/parameters/limit

# Root may write every file, but not one on a mount that is read-only.
front_limit_locked() { mount -o bind "$LIMIT" "$LIMIT" && mount -o remount,bind,ro "$LIMIT"; }
front_limit_unlocked() { umount "$LIMIT"; }

front_said() { grep -q "$1" /run/lab/netfront.log || { echo "its log does not say '$1':"; tail -n 20 /run/lab/netfront.log; return 1; }; }

front_pool() { front_number pool_granted; }

# A start that must end by itself: its last words and its status.
front_refused() { timeout 40 netfront run --vif 0 --tap xn0 --deadline 5 2>&1 </dev/null; }
