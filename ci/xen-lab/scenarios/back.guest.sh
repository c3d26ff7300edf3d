# shellcheck shell=sh source=/dev/null
# back, the guest's side: the kernel's own netfront, as in `linux-linux`.
. /lab/scenarios/linux-linux.guest.sh
