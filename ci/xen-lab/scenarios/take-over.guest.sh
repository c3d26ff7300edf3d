# shellcheck shell=sh source=/dev/null
# take-over, the guest's side: a guest that is in use, with its only interface driven by the kernel. `newcomer` uses it too.
. /lab/scenarios/front.guest.sh
. /lab/scenarios/linux-linux.guest.sh

# The kernel's interface of vif 0. Where there is udev, it has another name: see newcomer.guest.sh.
interface=eth0

# as_delivered: no module that netfront needs is loaded, and the interface has a default route.
as_delivered() {
    up || return 1
    ip route add default via 10.77.0.1 || return 1
    for module in xen-gntalloc xen-evtchn tun; do
        modprobe -r "$module" || { echo "$module cannot be unloaded"; return 1; }
    done
}

# probe_says STATUS WORDS [OPTION...]: it ends so, and says this.
probe_says() {
    wanted=$1
    words=$2
    shift 2
    netfront probe --vif 0 "$@" >/run/lab/probe.txt 2>&1
    found=$?
    if [ "$found" != "$wanted" ] || ! grep -q "$words" /run/lab/probe.txt; then
        echo "netfront probe $*: status $found, wanted $wanted and a line with: $words"
        cat /run/lab/probe.txt
        return 1
    fi
}

# probed: what is missing, what mends it, and that it does; the interface in use stays untouched.
probed() {
    probe_says 78 'modprobe xen-gntalloc' || return 1
    probe_says 69 'netfront run --vif 0 --take-over' --fix || return 1
    front_limit 500 >/dev/null || return 1
    probe_says 69 'echo .*parameters/limit' || return 1
    probe_says 69 'mended .*parameters/limit' --fix || return 1
    [ "$(front_limit)" -ge 772 ] || { echo "the limit is $(front_limit)"; return 1; }
    [ -e /dev/net/tun ] && [ "$(driver_of_vif)" = vif ]
}

driver_of_vif() { basename "$(readlink /sys/bus/xen/devices/vif-0/driver)"; }

# interface_now: everything of it that must be the same before and after.
interface_now() {
    cat "/sys/class/net/$interface/address" "/sys/class/net/$interface/mtu"
    ip addr show dev "$interface" | grep -o 'inet6* [^ ]*'
    # Without a carrier, for a moment, some programs say so here.
    ip route show | sed 's/ linkdown//; s/ *$//'
    neighbours_now
    echo "limit $(front_limit)"
    cut -d' ' -f1 /proc/modules | sort
}

# neighbours_now: IPv4's with their addresses: they are not asked for anew. In what state one that was learned is changes by itself.
neighbours_now() {
    ip neigh show dev "$interface" |
        awk '$2 == "lladdr" && $1 !~ /:/ { print $1, $3, /PERMANENT/ ? "permanent" : "learned" }' | sort
}

remember() { interface_now >/run/lab/before; }

same() { interface_now 2>/dev/null | cmp -s - /run/lab/before; }

# same_as_before: within 30 s, with the kernel's driver, and it carries pings.
same_as_before() {
    tries=150
    until [ "$(driver_of_vif)" = vif ] && same; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || {
            echo "$interface is not what it was (- before, + now):"
            interface_now >/run/lab/now
            diff -u /run/lab/before /run/lab/now
            tail -n 20 /run/lab/netfront.log
            return 1
        }
        sleep 0.2
    done
    front_answered || return 1
    [ ! -e /run/netfront/vif0.takeover.json ] || { echo "what was saved is still there"; return 1; }
}

# logs: what a step that failed leaves.
logs() { front_log; }

# take_over [OPTION...]: until it is connected. The process is a guardian; its child drives.
take_over() {
    touch /run/lab/netfront.log
    rm -f /run/lab/ended
    {
        sh -c 'echo $$ >/run/lab/netfront.pid; exec netfront run --vif 0 --take-over "$@"' sh "$@"
        echo $? >/run/lab/ended
    } >>/run/lab/netfront.log 2>&1 </dev/null &
    tries=150
    until netfront stats --vif 0 --json 2>/dev/null | grep -q '"connected": true'; do
        tries=$((tries - 1))
        if [ "$tries" = 0 ] || [ -e /run/lab/ended ]; then
            echo "not connected within 30 s:"
            tail -n 20 /run/lab/netfront.log
            return 1
        fi
        sleep 0.2
    done
    # A TAP, of the same name, with the same address.
    [ -e "/sys/class/net/$interface/tun_flags" ] || { echo "$interface is no TAP"; return 1; }
    # The modules in use are others meanwhile, their list is the same. For a moment a neighbour may be asked for.
    tries=25
    until interface_now >/run/lab/now 2>/dev/null && cmp -s /run/lab/now /run/lab/before; do
        tries=$((tries - 1))
        # What was compared, not what is so by now: without a confirmation the vif goes back meanwhile.
        [ "$tries" -gt 0 ] || { echo "the TAP differs from $interface:"; diff -u /run/lab/before /run/lab/now; return 1; }
        sleep 0.2
    done
}

# The report has it twice, the second time among the figures of the process.
driver_pid() { netfront stats --vif 0 --json | sed -n 's/^  "pid": \([0-9]*\).*/\1/p'; }

# The end of the terminal must not be the end of the session that comes through the interface.
hang_up() {
    kill -HUP "$(cat /run/lab/netfront.pid)" "$(driver_pid)"
    sleep 1
    netfront stats --vif 0 --json | grep -q '"connected": true'
}

# ended_with STATUS [SECONDS]: within so many, or 40.
ended_with() {
    tries=$((${2:-40} * 5))
    until [ -e /run/lab/ended ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "netfront did not end"; front_threads; return 1; }
        sleep 0.2
    done
    [ "$(cat /run/lab/ended)" = "$1" ] || {
        echo "netfront ended with $(cat /run/lab/ended), wanted $1"
        tail -n 20 /run/lab/netfront.log
        return 1
    }
}

# gave_up_after SECONDS: nobody has confirmed for so long, which the log says.
gave_up_after() {
    ended_with 75 $(($1 + 30)) || return 1
    tail -n 5 /run/lab/netfront.log | grep -q "nobody confirmed within $1 s" || {
        echo "the log does not say that nobody confirmed within $1 s:"
        tail -n 20 /run/lab/netfront.log
        return 1
    }
}

stop() { netfront stop --vif 0 && ended_with 0; }
terminated() { kill -TERM "$(cat /run/lab/netfront.pid)" && ended_with 0; }
driver_stopped() { kill -STOP "$(driver_pid)" && ended_with 75; }
driver_killed() { kill -KILL "$(driver_pid)" && ended_with 1; }
guardian_killed() { kill -KILL "$(cat /run/lab/netfront.pid)"; }

# both_killed: nobody is left to give the vif back; reset closes it, give restores the rest.
both_killed() {
    driver=$(driver_pid)
    kill -KILL "$(cat /run/lab/netfront.pid)" "$driver" || return 1
    sleep 1
    netfront reset --vif 0 >/run/lab/reset.txt 2>&1 || { cat /run/lab/reset.txt; return 1; }
    grep -q 'netfront give --vif 0' /run/lab/reset.txt || { cat /run/lab/reset.txt; return 1; }
    netfront give --vif 0
}

# session_start SECONDS [OPTION...]: a TCP session over the vif, which must live on whoever drives it.
session_start() {
    rm -f /run/lab/session.status
    {
        sh -c 'echo $$ >/run/lab/session.pid; exec iperf3 -c 10.77.0.1 -i 1 -f k --forceflush -t "$@"' sh "$@"
        echo $? >/run/lab/session.status
    } >/run/lab/session.txt 2>&1 </dev/null &
    tries=50
    until grep -q 'Kbits/sec' /run/lab/session.txt; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { cat /run/lab/session.txt; return 1; }
        sleep 0.2
    done
}

# session_rates: Kbit/s of each of its seconds.
session_rates() {
    awk '/Kbits\/sec/ && !/sender|receiver/ { for (i = 2; i <= NF; i++) if ($i == "Kbits/sec") print $(i - 1) }' /run/lab/session.txt
}

# session_moves: it lives, and within 30 s there are three of its seconds in a row, all of them after now, in which it moved data.
session_moves() {
    # The second that is not over yet began before.
    from=$(($(session_rates | wc -l) + 2))
    tries=150
    until session_rates | tail -n "+$from" | tail -n 3 | awk '$1 > 0 { moved++ } END { exit moved != 3 }'; do
        tries=$((tries - 1))
        if [ "$tries" = 0 ] || [ -e /run/lab/session.status ]; then
            echo "the session ended, or moved nothing for 30 s:"
            tail -n 40 /run/lab/session.txt
            return 1
        fi
        sleep 0.2
    done
    [ ! -e /run/lab/session.status ] || { echo "the session ended:"; tail -n 20 /run/lab/session.txt; return 1; }
}

# session_stop: ended by us, within 10 s, and not by itself before.
session_stop() {
    [ ! -e /run/lab/session.status ] || { echo "the session ended by itself:"; tail -n 20 /run/lab/session.txt; return 1; }
    kill -TERM "$(cat /run/lab/session.pid)" || return 1
    tries=50
    until [ -e /run/lab/session.status ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "iperf3 does not end"; tail -n 20 /run/lab/session.txt; return 1; }
        sleep 0.2
    done
}
