# shellcheck shell=sh source=/dev/null
# restart-front, the guest's side: the same driver as in the scenario `front`, killed again and again.
. /lab/scenarios/front.guest.sh

milliseconds() { awk '{ printf "%d", $1 * 1000 }' /proc/uptime; }

# front_number NAME: a counter of the running driver; granted_pages is what it shares now, rings included.
front_number() {
    front_stats | tr -d '\n ' >/run/lab/stats.json
    case $1 in
        granted_pages) sed -n 's/.*"hypervisor":{[^}]*"grants":\([0-9]*\).*/\1/p' /run/lab/stats.json ;;
        *) sed -n 's/.*"counters":{[^}]*"'"$1"'":\([0-9]*\).*/\1/p' /run/lab/stats.json ;;
    esac
}

# Sends as fast as it can; what comes back is thrown away.
pour() {
    killall nc dd 2>/dev/null
    (dd if=/dev/zero bs=64k count=100000 2>/dev/null | nc 10.77.0.1 5002 >/dev/null 2>&1) &
}

# front_rounds ROUNDS POOL: kills and starts; each time it must connect, have POOL pages and carry a ping.
front_rounds() {
    pour
    round=0
    while [ "$round" -lt "$1" ]; do
        round=$((round + 1))
        # In the middle of traffic: requests of both rings are on their way.
        sleep 0.5
        before=$(cat /sys/class/net/xn0/statistics/tx_bytes)
        sleep 0.3
        [ "$(cat /sys/class/net/xn0/statistics/tx_bytes)" -gt "$before" ] || { echo "round $round: no traffic before the kill"; return 1; }
        kill -KILL "$(cat /run/lab/netfront.pid)"
        # A TAP goes with its process, which takes a moment; until then its carrier says nothing.
        while [ -e /sys/class/net/xn0 ]; do sleep 0.02; done
        started=$(milliseconds)
        front_start --rx-limit 512 || return 1
        front_wait || return 1
        took=$(($(milliseconds) - started))
        ip addr add 10.77.0.2/24 dev xn0 || return 1
        front_answered || { echo "in round $round"; return 1; }
        pool=$(front_number pool_granted)
        echo "round $round connected after $took ms with a pool of $pool pages"
        [ "$pool" = "$2" ] || { echo "round $round: a pool of $pool pages, wanted $2"; return 1; }
        pour
    done
    killall nc dd 2>/dev/null
    return 0
}
