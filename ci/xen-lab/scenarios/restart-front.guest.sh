# shellcheck shell=sh source=/dev/null
# restart-front, the guest's side: the same driver as in the scenario `front`, killed again and again.
. /lab/scenarios/front.guest.sh

milliseconds() { awk '{ printf "%d", $1 * 1000 }' /proc/uptime; }

# front_number NAME: a counter of the running driver; `shared_pages` is what it shares now, rings included.
front_number() {
    front_stats | tr -d '\n ' >/run/lab/stats.json
    number_in_stats "$1"
}

# front_numbers NAME...: several out of one report.
front_numbers() {
    front_stats | tr -d '\n ' >/run/lab/stats.json
    for name in "$@"; do printf '%s ' "$(number_in_stats "$name")"; done | sed 's/ $//'
}

number_in_stats() {
    case $1 in
        shared_pages)
            granted=$(sed -n 's/.*"hypervisor":{[^}]*"grants":\([0-9]*\).*/\1/p' /run/lab/stats.json)
            revoked=$(sed -n 's/.*"hypervisor":{[^}]*"revokes":\([0-9]*\).*/\1/p' /run/lab/stats.json)
            echo $((granted - revoked))
            ;;
        *) sed -n 's/.*"counters":{[^}]*"'"$1"'":\([0-9]*\).*/\1/p' /run/lab/stats.json ;;
    esac
}

# Sends as fast as it can; what comes back is thrown away.
pour() {
    killall nc dd 2>/dev/null
    (dd if=/dev/zero bs=64k count=100000 2>/dev/null | nc 10.77.0.1 5002 >/dev/null 2>&1) &
}

moved() { cat "/sys/class/net/xn0/statistics/$1_bytes"; }

# traffic: 64 KiB each way while it looks, so that requests of both rings are on their way.
traffic() {
    tries=50
    rx=$(moved rx) tx=$(moved tx)
    until [ $(($(moved rx) - rx)) -ge 65536 ] && [ $(($(moved tx) - tx)) -ge 65536 ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "no traffic both ways before the kill: $(($(moved rx) - rx)) bytes in, $(($(moved tx) - tx)) out"; return 1; }
        sleep 0.1
    done
}

# front_rounds ROUNDS POOL: kills and starts; each time it must connect, have POOL pages and carry pings.
front_rounds() {
    pour
    round=0
    while [ "$round" -lt "$1" ]; do
        round=$((round + 1))
        traffic || { echo "in round $round"; return 1; }
        started=$(milliseconds)
        kill -KILL "$(cat /run/lab/netfront.pid)"
        # A TAP goes with its process, which takes a moment; until then its carrier says nothing.
        tries=250
        while [ -e /sys/class/net/xn0 ]; do
            tries=$((tries - 1))
            [ "$tries" -gt 0 ] || { echo "round $round: the TAP of the killed process is still there"; return 1; }
            sleep 0.02
        done
        front_start --rx-limit 512 || return 1
        front_wait || return 1
        took=$(($(milliseconds) - started))
        ip addr add 10.77.0.2/24 dev xn0 || return 1
        front_answered || { echo "in round $round"; return 1; }
        answered=$(($(milliseconds) - started))
        pool=$(front_number pool_granted)
        echo "round $round connected after $took ms with a pool of $pool pages, answered after $answered ms"
        [ "$pool" = "$2" ] || { echo "round $round: a pool of $pool pages, wanted $2"; return 1; }
        pour
    done
    killall nc dd 2>/dev/null
    return 0
}
