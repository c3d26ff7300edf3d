# shellcheck shell=sh
# cores: the engine's cores on four processors: two queues, two event cores, two workers, 64 flows: interrupts come where they are bound, also when one is moved; bound anew all the time no flow loses its order.
# guests: pv
# part: features

FLOWS=64

# field NAME: a number of the receiver's report; nothing if it does not know it.
field() { sed -n "s/.*\"$1\":\\([0-9][0-9.e-]*\\)[,}].*/\\1/p" "$report"; }

# each NAME: several.
each() { sed -n "s/.*\"$1\":\\[\\([0-9,]*\\)\\].*/\\1/p" "$report" | tr , ' '; }

# each_has WHAT NAME: there are two, and none is 0. A loop over none would say that all is well.
each_has() {
    check "$1: how many are told" 2 "$(each "$2" | wc -w | tr -d ' ')"
    for count in $(each "$2"); do check_at_least "$1" 1 "$count"; done
}

# start NAME OPTION...: the receiver of one flood.
start() {
    report=$RESULTS/$1.json
    shift
    arp -d 10.77.0.2 2>/dev/null
    ip neigh flush dev xenbr0
    guest_must "cores_start $*"
    within 30 "ARP is answered" answers_arp
    # Asking again would find nobody in the middle of a flood.
    arp -i xenbr0 -s 10.77.0.2 00:16:3e:00:00:02 || fail "the guest's address cannot be kept"
}

answers_arp() {
    ping -c 1 -W 1 10.77.0.2 >/dev/null 2>&1
    ip neigh show 10.77.0.2 dev xenbr0 | grep -q 'lladdr 00:16:3e:00:00:02'
}

send() { /lab/programs/datagrams send 10.77.0.2:9000 --flows "$FLOWS" --json "$@" >"$report.sent" 2>&1; }

# ended WHAT: the receiver's report, and what holds whatever was done meanwhile.
ended() {
    guest cores_report >"$report" || fail "$1: $(head -n 3 "$report")"
    cat "$report" "$report.sent"
    guest cores_log >"$report.log"
    check "$1: queues" 2 "$(field queues)"
    check "$1: flows" "$FLOWS" "$(field flows)"
    check_at_least "$1: datagrams" 1000 "$(field delivered)"
    check "$1: datagrams of a flow that came after a later one" 0 "$(field out_of_order)"
    check "$1: packets of a connection that a worker took after a later one" 0 "$(field order_violations)"
    each_has "$1: packets of each worker" packets_by_worker
}

# none_on_workers: but for one of each queue, which was under way when it was bound.
none_on_workers() {
    strays=$(field events_on_workers)
    [ "${strays:-9}" -le 2 ] || fail "interrupts on processors of workers: wanted none after they were bound, found ${strays:-nothing} in all"
}

# comes THREAD PROCESSOR: to this one, and to no other. Those of a second before may still be on their way.
comes() {
    sleep 1
    counts=$(guest come "$1" 4)
    echo "$1: $counts"
    check "processors whose interrupts of $1 are counted" 4 "$(echo "$counts" | wc -w | tr -d ' ')"
    at=0
    for count in $counts; do
        if [ "$at" = "$2" ]; then
            check_at_least "interrupts of $1 on processor $at" 10 "$count"
        else
            check "interrupts of $1 on processor $at" 0 "$count"
        fi
        at=$((at + 1))
    done
}

echo 2 >/sys/module/xen_netback/parameters/max_queues || fail "netback's parameter max_queues cannot be written"
guest_start 'vcpus=4'
# Two pools.
guest_must 'front_limit 4096'

stage "$SCENARIO: bound"
start bound --mode interrupt
send --rate 1000 --seconds 110 &
sender=$!
sleep 1
for queue in 0 1; do
    check "processor that interrupts of queue $queue are bound to" "$queue" "$(guest affinity "nf0q$queue")"
    comes "nf0q$queue" "$queue"
done
saw "interrupts of two queues come to processors 0 and 1"
# As an administrator moves it: from the next one on it comes there.
guest_must "move nf0q1 0"
check "processor that interrupts of queue 1 are bound to then" 0 "$(guest affinity nf0q1)"
comes nf0q1 0
comes nf0q0 0
saw "that of queue 1, moved to processor 0 while datagrams come, comes there and no more to 1"
wait "$sender"
ended bound
each_has "packets of each event core" packets_by_event_core
none_on_workers
saw "none on those of workers but $(field events_on_workers) under way when they were bound; $(field delivered) datagrams of $FLOWS flows, none out of order"

stage "$SCENARIO: bound anew all the time"
start rebinding --rebind 20 --work 100
send --seconds 8
ended rebinding
check_at_least "times that all was bound anew" 20 "$(field rebindings)"
check_at_least "queues that went from one event core to the other" 10 "$(field queues_moved)"
# By the event cores' own counters. Without a look at queues that have come the largest spread would be none.
check_at_least "times that all queues had come to the event cores that they were bound to" 20 "$(field settled)"
spread=$(field largest_spread)
[ "${spread:-9}" -le 1 ] || fail "queues that one event core had more than the other: wanted 1 at most, found ${spread:-nothing}"
none_on_workers
# Event cores' sleeps and workers' wake-ups together: 0.17 were seen. One for each packet would be the end of all batches.
wakeups=$(field wakeups_a_packet)
awk -v found="${wakeups:-9}" 'BEGIN { exit !(found < 0.5) }' ||
    fail "wake-ups a packet at full rate: wanted fewer than 0.5, found ${wakeups:-none in the report}"
saw "bound anew $(field rebindings) times at full rate: $(field delivered) datagrams, none out of order, spread $spread, $wakeups wake-ups a packet"
