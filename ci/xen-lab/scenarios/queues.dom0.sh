# shellcheck shell=sh disable=SC2034,SC2154 # some variables are backend.sh's
# queues: 1, 2 and 4 queues on as many processors with the kernel's netback: packets by each; fewer where netback or gntalloc's limit allows fewer; then the kernel's netfront with 2 and 4 queues and our `netback-sim`.
# guests: pv

# there KEY: whether the frontend's folder has it.
there() { xenstore-exists "$NODE/device/vif/0/$1" && echo yes || echo no; }

# keys_check QUEUES: flat keys of one queue, a folder for each of several, and never both.
keys_check() {
    flat=no last=yes
    [ "$1" != 1 ] || { flat=yes last=no; }
    check "flat keys with $1 queues" "$flat" "$(there tx-ring-ref)"
    check "a folder of the last of $1 queues" "$last" "$(there "queue-$(($1 - 1))/tx-ring-ref")"
    check "a folder beyond $1 queues" no "$(there "queue-$1")"
    [ "$1" = 1 ] || check "multi-queue-num-queues" "$1" "$(xenstore-read "$NODE/device/vif/0/multi-queue-num-queues")"
}

# many_flows: 32 each way, so that none of a few queues is without one.
many_flows() {
    for way in to from; do
        reverse=
        [ "$way" = to ] || reverse=-R
        # shellcheck disable=SC2086 # one word or none
        timeout 90 iperf3 -u $reverse -c 10.77.0.2 -P 32 -t 1 -b 100K -l 200 -f m >"$RESULTS/flows-$way-guest.txt" 2>&1 ||
            fail "32 flows $way the guest: $(tail -n 1 "$RESULTS/flows-$way-guest.txt")"
    done
}

# all_above_0 WHAT QUEUES COUNTS: so many counts, none of them 0.
all_above_0() {
    # shellcheck disable=SC2086 # words
    check "$1: counts" "$2" "$(echo $3 | wc -w | tr -d ' ')"
    for count in $3; do check_at_least "$1: each of $3" 1 "$count"; done
}

# serves QUEUES WHY [OPTION...]: our driver has so many queues, each with its thread and interrupt, and packets pass by each.
serves() {
    queues=$1 why=$2
    shift 2
    guest_must front_start "$@"
    guest_must front_wait
    guest_must front_address
    within 30 "the guest answers: $why" ping -c 1 -W 1 10.77.0.2
    keys_check "$queues"
    check "threads of queues" "$queues" "$(guest front_queue_threads)"
    check "interrupts of queues by their names" "$queues" "$(guest front_queue_interrupts)"
    ping_both 3 >/dev/null
    many_flows
    received=$(guest front_each rx_packets)
    sent=$(guest front_each tx_packets)
    all_above_0 "packets received by each of $queues queues" "$queues" "$received"
    all_above_0 "packets sent by each of $queues queues" "$queues" "$sent"
    check "packets dropped" 0 "$(guest front_drops)"
    guest_must front_stop
    saw "$why: $queues (in $received, out $sent)"
    stage "$SCENARIO: $why: $queues"
}

offer 4
for processors in 1 2 4; do
    guest_start "vcpus=$processors"
    serves "$processors" "queues on $processors processors"
    if [ "$processors" = 2 ]; then
        # From several to one: what the several left in the store is gone.
        serves 1 "queues with --queues 1" --queues 1
    fi
    [ "$processors" = 4 ] || xl destroy guest || fail "xl destroy"
done

# Fewer, on the guest with four processors.
# What two queues want (770 each, 2 for a control ring) and 324 for another vif; then less. The log goes on over starts.
warnings=0
for step in 1866:2 1024:1; do
    pages=${step%:*} fewer=${step#*:}
    guest_must "front_limit $pages"
    guest_must front_limit_locked
    serves "$fewer" "queues that a limit of $pages shared pages is enough for"
    guest_must "front_said '$fewer of 4 queues: the limit of shared pages is not enough for more'"
    warnings=$((warnings + 1))
    check "warnings about shared pages so far" "$warnings" "$(guest "front_log | grep -c 'may be shared by all processes'")"
    guest_must front_limit_unlocked
done
offer 2
vif_again
serves 2 "queues with a netback that offers 2"
guest_must "front_said '2 of 4 queues: the backend serves no more'"
offer 1
vif_again
serves 1 "queues with a netback that offers 1"
guest front_log >"$RESULTS/netfront.log"
xl destroy guest || fail "xl destroy"

# kernel_serves QUEUES: the kernel's netfront with so many queues of our backend.
kernel_serves() {
    BACKEND_NAME=$1
    # Before there is a vif: netfront makes as many queues as it may have then.
    guest_must "kernel_queues $1"
    backend_start --queues "$1"
    guest_must up
    within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
    backend_check
    keys_check "$1"
    ping_both 3 >/dev/null
    many_flows
    tcp_both 2 >/dev/null
    events=$(guest kernel_events)
    all_above_0 "receive interrupts of each of $1 queues" "$1" "$events"
    backend_detach
    saw "the kernel's netfront with $1 queues and netback-sim: $packets packets, interrupts $events"
    stage "$SCENARIO: the kernel's netfront with $1 queues and netback-sim"
}

guest_start 'vcpus=4' 'vif=[]'
kernel_serves 2
kernel_serves 4
