# shellcheck shell=sh source=/dev/null
# link, the guest's side: our driver as in the scenario `restart-front`; what the store says of the vif is looked for in the interface,
# with the time that it takes, by this guest's clock.
. /lab/scenarios/restart-front.guest.sh

# link_watch NODE FILE VALUE: waits, in the background, for the next change of the node, and for the interface to say the value in that file
# of /sys/class/net/xn0; writes down when each was so.
link_watch() {
    rm -f /run/lab/watching /run/lab/told /run/lab/said
    # A watch fires once when it is set, and then for the change. A watch that is not needed any more ends with its time.
    timeout 60 xenstore-watch "$1" 2>/dev/null </dev/null | {
        read -r _ && : >/run/lab/watching
        read -r _ && read -r up _ </proc/uptime && echo "$up" >/run/lab/told
    } &
    # Not oftener: a program that starts takes the processor from the driver.
    (
        until read -r found <"/sys/class/net/xn0/$2" && [ "$found" = "$3" ]; do sleep 0.05; done
        read -r up _ </proc/uptime
        echo "$up" >/run/lab/said
    ) >/dev/null 2>&1 </dev/null &
    echo $! >/run/lab/looker.pid
    tries=100
    until [ -e /run/lab/watching ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "no watch of $1"; return 1; }
        sleep 0.05
    done
    # What is so before anybody wrote it would prove nothing.
    sleep 0.1
    [ ! -e /run/lab/said ] || { echo "$2 is $3 already"; return 1; }
}

# link_took FILE: milliseconds from the change of the node, as this guest was told of it, until the interface was seen to say so: at the next look.
link_took() {
    tries=75
    until [ -s /run/lab/told ] && [ -s /run/lab/said ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || {
            kill "$(cat /run/lab/looker.pid)"
            echo "within 15 s the guest was told $([ -s /run/lab/told ] || echo nothing), $1 is $(cat "/sys/class/net/xn0/$1" 2>&1)"
            return 1
        }
        sleep 0.2
    done
    # The driver may be quicker than the shell that has the same watch.
    awk -v told="$(cat /run/lab/told)" -v said="$(cat /run/lab/said)" 'BEGIN { took = (said - told) * 1000; printf "%d\n", (took > 0) ? took : 0 }'
}

# link_status PATTERN: `netfront status` says so.
link_status() {
    netfront status --vif 0 >/run/lab/status.txt || return 1
    grep -q "$1" /run/lab/status.txt || { echo "status does not say '$1':"; cat /run/lab/status.txt; return 1; }
}

# link_offer KEY: whether the backend offers it, by `netfront status --json`: true or false.
link_offer() { netfront status --vif 0 --json | sed -n 's/.*"'"$1"'": \(true\|false\).*/\1/p'; }
