# shellcheck shell=sh source=/dev/null
# vifs, the guest's side: a driver for each of many vifs, each a process of its own with the smallest pools.
. /lab/scenarios/limits.guest.sh

# vifs_start FROM TO: until each has a carrier, and an address.
vifs_start() {
    # All are on one wire: each answers for its own address only, and 50 of them do not look for neighbours by IPv6.
    echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore
    echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
    vif=$1
    while [ "$vif" -le "$2" ]; do
        until [ -e "/sys/bus/xen/devices/vif-$vif" ]; do sleep 0.2; done
        smallest "$vif" || return 1
        ip addr add "10.77.0.$((100 + vif))/24" dev "t$vif" || return 1
        vif=$((vif + 1))
    done
}

# smallest VIF: with the fewest pages there may be, until it has a carrier. Without a control ring, since 50 times its nodes are more than
# xenstored lets a domain own (1000).
smallest() {
    netfront run --vif "$1" --tap "t$1" --queues 1 --no-grant-mapping --rx-pages 32 --rx-limit 32 --tx-pages 32 >"/run/lab/vif$1.log" 2>&1 </dev/null &
    echo $! >"/run/lab/vif$1.pid"
    tries=200
    until ip link set "t$1" up 2>/dev/null && [ "$(cat "/sys/class/net/t$1/carrier" 2>/dev/null)" = 1 ]; do
        tries=$((tries - 1))
        if [ "$tries" = 0 ] || ! kill -0 "$(cat "/run/lab/vif$1.pid")" 2>/dev/null; then
            echo "vif $1 is not connected:"
            tail -n 5 "/run/lab/vif$1.log"
            return 1
        fi
        sleep 0.2
    done
}

# vifs_pinged FROM TO: over each of them, there and back. Only the TAP with that address takes the answer.
vifs_pinged() {
    vif=$1
    while [ "$vif" -le "$2" ]; do
        ping -c 1 -W 5 -I "t$vif" 10.77.0.1 >/run/lab/ping.txt 2>&1 ||
            ping -c 1 -W 5 -I "t$vif" 10.77.0.1 >/run/lab/ping.txt 2>&1 || {
            echo "no answer over vif $vif:"
            cat /run/lab/ping.txt
            return 1
        }
        vif=$((vif + 1))
    done
}

# vifs_stop LAST: those whose vif was taken away wait for another one until they are told to end.
vifs_stop() {
    for vif in $(seq 0 "$1"); do kill -TERM "$(cat "/run/lab/vif$vif.pid")" 2>/dev/null; done
    for vif in $(seq 0 "$1"); do
        tries=150
        while kill -0 "$(cat "/run/lab/vif$vif.pid")" 2>/dev/null; do
            tries=$((tries - 1))
            [ "$tries" -gt 0 ] || { echo "the driver of vif $vif does not end:"; tail -n 5 "/run/lab/vif$vif.log"; return 1; }
            sleep 0.2
        done
    done
}

# vifs_memory: what the drivers take of each kind, in KiB: their own, all together.
vifs_memory() {
    for file in /run/lab/vif*.pid; do cat "/proc/$(cat "$file")/smaps_rollup" 2>/dev/null; done |
        awk '/^Pss:/ { all += $2 } /^Private_Dirty:/ { own += $2 } END { print own + 0, all + 0 }'
}

# left: what a driver may leave behind: interrupts of event channels, open descriptors, sockets, TAPs, vifs.
left() {
    grep -c evtchn: /proc/interrupts
    for process in /proc/[0-9]*; do ls -l "$process/fd" 2>/dev/null; done | grep -cE '/dev/(xen/(evtchn|gntalloc|gntdev)|net/tun)'
    find /run/netfront -name 'vif*.sock' 2>/dev/null | wc -l
    find /sys/class/net -name 't[0-9]*' | wc -l
}

available() { awk '/^MemAvailable:/ { print $2 }' /proc/meminfo; }

logs() { for file in /run/lab/vif*.log; do echo "$file:"; tail -n 5 "$file"; done; }
