# shellcheck shell=sh
# front, the guest's side: our driver drives the vif; the kernel's netfront is not loaded.

# front_start [OPTION...]: options of `netfront run`, where the kernel's netfront is not loaded.
front_start() {
    [ ! -d /sys/module/xen_netfront ] || { echo "the kernel's netfront is loaded"; return 1; }
    front_starts "$@"
}

front_starts() {
    if [ ! -e /run/lab/netfront.log ]; then
        : >/run/lab/netfront.log
        # On the console too: it comes out to the host even when the guest answers no more.
        tail -f /run/lab/netfront.log >/dev/console 2>/dev/null </dev/null &
    fi
    netfront run --vif 0 --tap xn0 "$@" >>/run/lab/netfront.log 2>&1 </dev/null &
    echo $! >/run/lab/netfront.pid
}

front_alive() { kill -0 "$(cat /run/lab/netfront.pid)" 2>/dev/null; }

# The carrier of an interface that is down cannot be read; up it says whether the vif is connected.
front_has_carrier() {
    [ -e /sys/class/net/xn0 ] && ip link set xn0 up 2>/dev/null && [ "$(cat /sys/class/net/xn0/carrier 2>/dev/null)" = 1 ]
}

front_wait() {
    tries=150
    until front_has_carrier; do
        front_alive || { echo "netfront ended:"; tail -n 20 /run/lab/netfront.log; return 1; }
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "no carrier on xn0 within 30 s:"; tail -n 20 /run/lab/netfront.log; return 1; }
        sleep 0.2
    done
}

front_address() { ip addr add 10.77.0.2/24 dev xn0 && iperf3 -s -D >/dev/null 2>&1; }

# front_answered: the first answer comes once the other side's bridge forwards; then none may be lost.
front_answered() {
    tries=20
    until ping -c 1 -W 1 10.77.0.1 >/run/lab/ping.txt; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || break
    done
    ping -c 3 -i 0.2 -W 5 10.77.0.1 >/run/lab/ping.txt
    # "3 packets received" says busybox, "3 received" iputils.
    if ! grep -qE ' 3 (packets )?received' /run/lab/ping.txt; then
        echo "not 3 of 3 pings are answered:"
        cat /run/lab/ping.txt
        return 1
    fi
}

front_log() { cat /run/lab/netfront.log; }

# front_limit [PAGES]: gntalloc's limit of shared pages, after it was set.
front_limit() {
    [ $# = 0 ] || echo "$1" >/sys/module/xen_gntalloc/parameters/limit || return 1
    cat /sys/module/xen_gntalloc/parameters/limit
}

front_stats() { netfront stats --vif 0 --json; }

# Regions of pages that the program shares, as the kernel sees them.
front_mappings() { grep -c /dev/xen/gntalloc "/proc/$(cat /run/lab/netfront.pid)/maps"; }

# What each thread waits for, as the kernel sees it: the first question when a program hangs.
front_threads() {
    tail -n 20 /run/lab/netfront.log
    for thread in "/proc/$(cat /run/lab/netfront.pid)/task"/*; do
        echo "thread $(cat "$thread/comm"): system call $(cut -d' ' -f1-4 "$thread/syscall" 2>/dev/null)"
        cat "$thread/stack" 2>/dev/null
    done
}

front_stop() {
    kill -TERM "$(cat /run/lab/netfront.pid)"
    tries=50
    while front_alive; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "netfront did not end within 10 s of SIGTERM"; front_threads; return 1; }
        sleep 0.2
    done
}

# shellcheck source=/dev/null
. /lab/witness.sh
# shellcheck source=/dev/null
. /lab/kernel.sh
