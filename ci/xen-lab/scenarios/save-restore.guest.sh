# shellcheck shell=sh source=/dev/null
# save-restore, the guest's side: the kernel's netfront, or ours as in the scenario `front`.
. /lab/scenarios/front.guest.sh
. /lab/scenarios/linux-linux.guest.sh

# The monotonic clock, in tenths of a second: it stands still while the guest is saved. The uptime does not.
tenths() { awk '/^now at/ { printf "%d\n", $3 / 100000000; exit }' /proc/timer_list; }

pinging() {
    while :; do
        ping -c 1 -W 1 10.77.0.1 >/dev/null 2>&1 && tenths >>/run/lab/answered
        sleep 0.1
    done
}

pinging_start() {
    : >/run/lab/answered
    pinging </dev/null >/dev/null 2>&1 &
    echo $! >/run/lab/pinging.pid
    sleep 1
}

pinging_stop() { kill "$(cat /run/lab/pinging.pid)"; }

# The longest time between two answers since the last call, in tenths of a second.
pinging_gap() {
    awk 'NR > 1 && $1 - last > gap { gap = $1 - last } { last = $1 } END { if (NR > 1) print gap + 0; else print "only " NR " answers" }' /run/lab/answered
    tail -n 1 /run/lab/answered >/run/lab/answered.last
    cat /run/lab/answered.last >/run/lab/answered
}

# offered NAME: whether the backend offers it, as `netfront status` tells.
offered() {
    offers=$(netfront status --vif 0 | sed -n 's/^  features *backend offers \([^;]*\);.*/ \1 /p')
    case $offers in *" $1 "*) echo yes ;; *) echo no ;; esac
}

# Processes that keep handles: each is a shell, which leads its group, with what it sleeps in.
keepers() {
    grep -l xen-evtchn-keeper /proc/[0-9]*/cmdline 2>/dev/null | while read -r file; do
        pid=${file#/proc/}
        pid=${pid%/cmdline}
        [ "$(cut -d' ' -f5 "/proc/$pid/stat" 2>/dev/null)" != "$pid" ] || echo "$pid"
    done | wc -l
}
