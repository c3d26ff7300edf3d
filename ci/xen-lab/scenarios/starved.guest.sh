# shellcheck shell=sh source=/dev/null
# starved, the guest's side: our driver as in the scenario `restart-front`, told to pause and to go on.
. /lab/scenarios/restart-front.guest.sh
