# shellcheck shell=sh source=/dev/null
# take-give, the guest's side: the kernel's netfront and ours, in turn.
. /lab/scenarios/front.guest.sh
. /lab/scenarios/linux-linux.guest.sh

# An interface that is up may be somebody's: neither command takes it away.
refused_in_use() {
    refused 'eth0 is up' netfront take --vif 0 || return 1
    refused 'netfront take --vif 0' netfront run --vif 0 --tap xn0 || return 1
    ping -c 1 -W 5 10.77.0.1
}

# refused WHY COMMAND...: it says so, and that this cannot be done here (69).
refused() {
    why=$1
    shift
    "$@" >/run/lab/refused 2>&1
    status=$?
    if [ "$status" != 69 ] || ! grep -q "$why" /run/lab/refused; then
        echo "$* was not refused, status $status:"
        cat /run/lab/refused
        return 1
    fi
}

pinged() { front_answered || { echo "in round $round: $1"; return 1; }; }

# take_and_give ROUNDS: each way once a round.
take_and_give() {
    touch /run/lab/netfront.log
    round=0
    while [ "$round" -lt "$1" ]; do
        round=$((round + 1))
        ip link set eth0 down
        netfront take --vif 0 2>&1 || return 1
        [ ! -e /sys/class/net/eth0 ] || { echo "round $round: eth0 is still there"; return 1; }
        front_starts || return 1
        front_wait || return 1
        ip addr add 10.77.0.2/24 dev xn0 || return 1
        pinged ours || return 1
        echo "round $round: ours works"
        if [ "$round" = 5 ]; then
            # give loads it again, and lets it have this one vif.
            modprobe -r xen-netfront || { echo "round $round: the kernel's netfront cannot be unloaded"; return 1; }
        fi
        if [ "$round" = 3 ]; then
            # A crash: give finds a backend that is connected to nobody.
            kill -KILL "$(cat /run/lab/netfront.pid)"
        else
            front_stop || return 1
        fi
        netfront give --vif 0 2>&1 || return 1
        ip addr add 10.77.0.2/24 dev eth0 && ip link set eth0 up || return 1
        pinged "the kernel's" || return 1
        echo "round $round: the kernel's works"
    done
}
