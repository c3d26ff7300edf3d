# shellcheck shell=sh source=/dev/null
# cores, the guest's side: netfront/examples/receive.rs, and where the interrupts of its queues come.
. /lab/scenarios/front.guest.sh

# cores_start OPTION...: two queues, two threads that take events, two that work.
cores_start() {
    /lab/programs/receive --address 10.77.0.2 --queues 2 --event-cores 2 --workers 2 --check-order --json "$@" \
        >/run/lab/receive.out 2>/run/lab/receive.err </dev/null &
    echo $! >/run/lab/receive.pid
    tries=150
    until grep -q receiving /run/lab/receive.out; do
        kill -0 "$(cat /run/lab/receive.pid)" 2>/dev/null || { echo "the receiver ended:"; cores_log; return 1; }
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "the receiver does not start:"; cores_log; return 1; }
        sleep 0.2
    done
}

# cores_report: once it has ended.
cores_report() {
    tries=150
    while kill -0 "$(cat /run/lab/receive.pid)" 2>/dev/null; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "the receiver does not end:"; cores_log; return 1; }
        sleep 0.2
    done
    grep delivered /run/lab/receive.out || { echo "no report:"; cores_log; return 1; }
}

cores_log() { cat /run/lab/receive.err /run/lab/receive.out; }

# irqs THREAD: numbers of the interrupts that carry the name of a queue's thread: one for each direction, or one.
irqs() { sed -n "s/^ *\\([0-9]*\\):.* evtchn:$1\$/\\1/p" /proc/interrupts; }

# affinity THREAD: processors to which they may come.
affinity() { for irq in $(irqs "$1"); do cat "/proc/irq/$irq/smp_affinity_list"; done | sort -u | tr '\n' ' ' | sed 's/ $//'; }

# move THREAD PROCESSOR: as an administrator does.
move() { for irq in $(irqs "$1"); do echo "$2" >"/proc/irq/$irq/smp_affinity_list" || return 1; done; }

# came THREAD: how many have come to each of four processors.
came() {
    awk -v name="evtchn:$1" '
        $NF == name { for (processor = 0; processor < 4; processor++) sum[processor] += $(processor + 2) }
        END { print sum[0] + 0, sum[1] + 0, sum[2] + 0, sum[3] + 0 }' /proc/interrupts
}

# come THREAD SECONDS: how many come in that time.
come() {
    before=$(came "$1")
    sleep "$2"
    echo "$before $(came "$1")" | awk '{ print $5 - $1, $6 - $2, $7 - $3, $8 - $4 }'
}
