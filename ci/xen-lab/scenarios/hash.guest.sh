# shellcheck shell=sh source=/dev/null
# hash, the guest's side: our driver as in the scenario `queues`.
. /lab/scenarios/queues.guest.sh

# hash_front OPTION...: two queues, and the backend hashes.
hash_front() {
    echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
    front_start --queues 2 --hash toeplitz "$@" && front_wait && front_address || return 1
    # The addresses of Microsoft's verification suite, whose hashes are known.
    ip addr add 161.142.100.80/32 dev xn0 && ip route add 66.9.149.187 dev xn0 || return 1
    ip -6 addr add 3ffe:2501:200:3::1/128 dev xn0 && ip -6 route add 3ffe:2501:200:1fff::7 dev xn0 || return 1
    tries=50
    until netfront stats --vif 0 | grep -q '^ *hash_active: 1'; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "the backend does not hash within 10 s:"; tail -n 5 /run/lab/netfront.log; return 1; }
        sleep 0.2
    done
}

# hash_plain: two queues, and nothing is asked of the backend's hashes.
hash_plain() { front_start --queues 2 && front_wait && front_address; }

# hash_trace: what is received from now on, each packet with its queue and its hash.
hash_trace() {
    netfront trace --vif 0 --json >/run/lab/trace.json 2>/run/lab/trace.err </dev/null &
    echo $! >/run/lab/trace.pid
    # It records at once; a process takes a moment to start.
    sleep 1
}

# hash_traced: a line for each packet that came with a hash: its queue and the hash.
hash_traced() {
    kill -TERM "$(cat /run/lab/trace.pid)"
    tries=50
    while kill -0 "$(cat /run/lab/trace.pid)" 2>/dev/null; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "the trace does not end"; cat /run/lab/trace.err; return 1; }
        sleep 0.2
    done
    sed -n 's/.*"ring":"rx","what":"response","queue":\([0-9]*\),.*"hash":\([0-9]*\),.*/\1 \2/p' /run/lab/trace.json | sort | uniq -c |
        awk '{ print $2, $3, $1 }'
}
