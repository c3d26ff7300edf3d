# shellcheck shell=sh source=/dev/null
# restart, the guest's side: the same driver as in the scenario `front`.
. /lab/scenarios/front.guest.sh

front_kill() { kill -KILL "$(cat /run/lab/netfront.pid)"; }
