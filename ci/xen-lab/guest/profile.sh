# shellcheck shell=sh source=/dev/null
# The prompt of --shell: all that scenarios have, in the name of one of them (its guest functions are known).
. /lab/lab.sh
SCENARIO=${SCENARIO:-linux-linux}
mkdir -p "/results/$SCENARIO"
. /lab/talk.sh
. /lab/measure.sh
. /lab/capture.sh
. /lab/kernel.sh
. /lab/backend.sh
# A person who mistypes must not lose the shell.
trap - TERM
fail() {
    echo "failed: $*"
    return 1
}
