# shellcheck shell=sh
# affinity: a queue's thread and its interrupts, moved from one processor to the other and back while packets pass: the counts in /proc/interrupts move with them.
# guests: pv
# part: features

# moved PROCESSOR FROM: all events come to it from now on, none to the one that had them.
moved() {
    guest_must "netfront affinity $1 --vif 0"
    check "processors of the queue's interrupts" "$1" "$(guest front_interrupts_at)"
    check "processors of the queue's thread" "$1" "$(guest front_thread_at)"
    # One that was on its way still comes to the old one.
    ping_both 3 >/dev/null
    left=$(guest "front_interrupts_on $2")
    here=$(guest "front_interrupts_on $1")
    ping_both 20 >/dev/null
    check "events on processor $2, which had them" "$left" "$(guest "front_interrupts_on $2")"
    check_at_least "events on processor $1" "$((here + 10))" "$(guest "front_interrupts_on $1")"
    saw "moved to processor $1"
    stage "$SCENARIO: moved to processor $1"
}

guest_start vcpus=2
guest_must front_start --queues 1
guest_must front_wait
guest_must front_address
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
moved 1 0
moved 0 1
moved 1 0
tcp_both 2 >/dev/null
# With the next connection there are new interrupts, and they begin where the old ones were.
timeout 40 xl network-detach guest 0 || fail "xl network-detach"
timeout 40 xl network-attach guest mac=00:16:3e:00:00:02 bridge=xenbr0 script=/etc/xen/scripts/vif-lab ||
    fail "xl network-attach"
guest_must front_wait
within 30 "the guest answers after a reconnect" ping -c 1 -W 1 10.77.0.2
check "processors of the new interrupts" 1 "$(guest front_interrupts_at)"
guest_must front_stop
guest front_log >"$RESULTS/netfront.log"
