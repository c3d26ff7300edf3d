# shellcheck shell=sh source=/dev/null
# compare, the guest's side: the kernel's driver or ours, as in the lab's own scenarios.
. /lab/scenarios/linux-linux.guest.sh
. /lab/scenarios/front.guest.sh

front_stats_if_ours() { [ ! -e /run/lab/netfront.pid ] || front_stats; }
