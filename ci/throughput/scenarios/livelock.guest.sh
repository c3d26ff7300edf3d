# shellcheck shell=sh source=/dev/null
# livelock, the guest's side: the kernel's driver, ours with a TAP, or the library alone; and who counts what came.
. /lab/scenarios/linux-linux.guest.sh
. /lab/scenarios/front.guest.sh

# livelock_up WHO: who drives the vif, for all floods. The library's program brings its own driver.
livelock_up() {
    case $1 in
        kernel) kernel_start ;;
        tap) front_start && front_wait && ip addr add 10.77.0.2/24 dev xn0 ;;
        library) ;;
        *) echo "no receiver $1" && return 1 ;;
    esac
}

# livelock_receive WHO OPTION...: a program that counts the datagrams of one flood.
livelock_receive() {
    who=$1
    shift
    if [ "$who" = library ]; then
        livelock_starts /lab/programs/receive --address 10.77.0.2 --port 9000 --json "$@"
    else
        livelock_starts /lab/programs/datagrams receive 0.0.0.0:9000 --json "$@"
    fi
}

livelock_starts() {
    "$@" >/run/lab/receive.out 2>/run/lab/receive.err </dev/null &
    echo $! >/run/lab/receive.pid
    tries=100
    until grep -q receiving /run/lab/receive.out; do
        kill -0 "$(cat /run/lab/receive.pid)" 2>/dev/null || { echo "the receiver ended:"; livelock_log; return 1; }
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "the receiver does not start:"; livelock_log; return 1; }
        sleep 0.1
    done
}

# livelock_report: what it has counted, once it has ended; until then its vif cannot be had.
livelock_report() {
    tries=200
    until grep -q delivered /run/lab/receive.out; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.2
    done
    tries=50
    while kill -0 "$(cat /run/lab/receive.pid)" 2>/dev/null && [ "$tries" -gt 0 ]; do
        tries=$((tries - 1))
        sleep 0.2
    done
    grep delivered /run/lab/receive.out
}

# livelock_dropped: datagrams that found their socket full, since the guest started.
livelock_dropped() { awk '/^Udp: [0-9]/ { print $6 }' /proc/net/snmp; }

livelock_end() { kill "$(cat /run/lab/receive.pid)" 2>/dev/null; sleep 1; }

livelock_log() { cat /run/lab/receive.err /run/lab/receive.out; }

livelock_stats() { [ ! -e /run/lab/netfront.pid ] || front_stats; }
