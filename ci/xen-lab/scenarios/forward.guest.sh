# shellcheck shell=sh
# forward, the guest's side: netfront/examples/forward.rs with the vifs 0 and 1.

# forward_start [OPTION...]
forward_start() {
    /lab/programs/forward --vif 0 --to 1 "$@" >/run/lab/forward.log 2>&1 </dev/null &
    echo $! >/run/lab/forward.pid
    tries=100
    until grep -q forwarding /run/lab/forward.log; do
        forward_alive || return 1
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "the example does not start:"; cat /run/lab/forward.log; return 1; }
        sleep 0.1
    done
}

forward_alive() { kill -0 "$(cat /run/lab/forward.pid)" 2>/dev/null || { echo "the example ended:"; cat /run/lab/forward.log; return 1; }; }

forward_log() { cat /run/lab/forward.log; }

logs() { forward_log; }
