# shellcheck shell=sh source=/dev/null
# multicast, the guest's side: our driver as in the scenario `front`; a program joins groups, by the socket's own way.
. /lab/scenarios/restart-front.guest.sh

# multicast_join GROUP: a socket that receives the group on the TAP; the kernel reports that it joined.
multicast_join() {
    socat -u "UDP4-RECV:9000,reuseaddr,ip-add-membership=$1:xn0" OPEN:/dev/null >/run/lab/socat.txt 2>&1 </dev/null &
    echo $! >/run/lab/socat.pid
    sleep 1
    kill -0 "$(cat /run/lab/socat.pid)" 2>/dev/null || { echo "socat ended:"; cat /run/lab/socat.txt; return 1; }
}

multicast_leave() { kill "$(cat /run/lab/socat.pid)"; }

# multicast_record: all that the driver is sent from now on, as it comes out of the ring: what the backend let through.
multicast_record() {
    netfront capture --vif 0 --write /run/lab/multicast.pcap --snaplen 96 >/run/lab/capture.txt 2>&1 </dev/null &
    echo $! >/run/lab/capture.pid
    sleep 1
}

multicast_recorded() {
    kill -TERM "$(cat /run/lab/capture.pid)"
    tries=50
    while kill -0 "$(cat /run/lab/capture.pid)" 2>/dev/null; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.2
    done
    cat /run/lab/multicast.pcap
}
