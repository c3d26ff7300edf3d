# shellcheck shell=sh source=/dev/null
# One scenario in dom0, in a shell of its own: SCENARIO is its name.
. /lab/lab.sh
. /lab/talk.sh
. /lab/measure.sh
. /lab/capture.sh
. /lab/kernel.sh
. /lab/backend.sh
. /lab/netback.sh
. "/lab/scenarios/$SCENARIO.dom0.sh"
