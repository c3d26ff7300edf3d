# shellcheck shell=sh source=/dev/null
# both, the guest's side: the same driver as in the scenario `front`.
. /lab/scenarios/front.guest.sh
