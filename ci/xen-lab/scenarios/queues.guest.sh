# shellcheck shell=sh source=/dev/null
# queues, the guest's side: our driver as in the scenario `limits`, and the kernel's own as in `linux-linux`.
. /lab/scenarios/limits.guest.sh
. /lab/scenarios/linux-linux.guest.sh

# front_each NAME: that counter of each queue, in their order. Of one queue it is the counter itself.
front_each() {
    netfront stats --vif 0 >/run/lab/stats.txt || return 1
    prefix=
    ! grep -q '^ *queue_0_' /run/lab/stats.txt || prefix='queue_[0-9]*_'
    sed -n "s/^ *$prefix$1: //p" /run/lab/stats.txt | tr '\n' ' ' | sed 's/ $//'
}

# front_drops: packets that the driver dropped since it understood nothing of them, all reasons together.
front_drops() { netfront stats --vif 0 | awk '/^ *rx_drop_/ { sum += $2 } END { print sum + 0 }'; }

# One that has just ended is gone before it is read.
front_queue_threads() { cat "/proc/$(cat /run/lab/netfront.pid)/task"/*/comm 2>/dev/null | grep -c '^nf0q[0-9]*$'; }

front_queue_interrupts() { grep -o 'evtchn:nf0q[0-9]*' /proc/interrupts | sort -u | wc -l | tr -d ' '; }

# kernel_queues N: the kernel's netfront asks for so many from now on.
kernel_queues() {
    if [ -d /sys/module/xen_netfront ]; then
        echo "$1" >/sys/module/xen_netfront/parameters/max_queues
    else
        modprobe xen-netfront "max_queues=$1"
    fi
}

# kernel_events: receive interrupts of each queue.
kernel_events() {
    awk '/-q[0-9]+-rx$/ {
        sum = 0
        for (column = 2; column <= NF && $column ~ /^[0-9]+$/; column++) sum += $column
        printf "%s%d", between, sum
        between = " "
    }' /proc/interrupts
}
