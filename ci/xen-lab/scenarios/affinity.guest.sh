# shellcheck shell=sh source=/dev/null
# affinity, the guest's side: our driver as in the scenario `limits`, and where its interrupts come to.
. /lab/scenarios/limits.guest.sh

# front_interrupts_on PROCESSOR: how many events of the queue came to it since its interrupts were made.
front_interrupts_on() {
    awk -v column="$(($1 + 2))" '/evtchn:nf0q0$/ { sum += $column } END { print sum + 0 }' /proc/interrupts
}

# front_interrupts_at: the processors that they may come to, each list once.
front_interrupts_at() {
    sed -n 's/^ *\([0-9]*\):.*evtchn:nf0q0$/\1/p' /proc/interrupts | while read -r irq; do
        cat "/proc/irq/$irq/smp_affinity_list"
    done | sort -u | tr '\n' ' ' | sed 's/ $//'
}

# front_thread_at: the processors that the queue's thread may run on.
front_thread_at() {
    for thread in "/proc/$(cat /run/lab/netfront.pid)/task"/*; do
        [ "$(cat "$thread/comm")" != nf0q0 ] || sed -n 's/^Cpus_allowed_list:[^0-9]*//p' "$thread/status"
    done
}
