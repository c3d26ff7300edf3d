# shellcheck shell=sh source=/dev/null
# back-offloads, the guest's side: the kernel's own netfront, with the far end of the scenario `offloads`.
. /lab/scenarios/offloads.guest.sh
. /lab/scenarios/linux-linux.guest.sh

# back_front: the kernel's driver has found the vif.
back_front() { kernel_start && ip -6 addr add fd77::2/64 dev eth0; }

# The kernel's, in the place of our driver's: lines of a name and a number.
counters() {
    for name in rx_errors tx_errors tx_dropped; do echo "$name: $(cat "/sys/class/net/eth0/statistics/$name")"; done
    ethtool -S eth0
}

# multicast_record: all that goes to groups from now on. Not promiscuous: what the kernel would not take is not asked for.
multicast_record() {
    tcpdump -i eth0 -p -s 96 -U -Z root -w /run/lab/multicast.pcap 'ether multicast' >/run/lab/multicast.txt 2>&1 </dev/null &
    echo $! >/run/lab/multicast.pid
    tries=100
    until grep -q 'listening on' /run/lab/multicast.txt; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "tcpdump does not listen:"; cat /run/lab/multicast.txt; return 1; }
        sleep 0.1
    done
}

# multicast_recorded ADDRESS...: how many packets went to each of these Ethernet addresses.
multicast_recorded() {
    sleep 1
    kill -TERM "$(cat /run/lab/multicast.pid)"
    tries=100
    while kill -0 "$(cat /run/lab/multicast.pid)" 2>/dev/null; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "tcpdump does not end"; return 1; }
        sleep 0.1
    done
    for address in "$@"; do tcpdump -r /run/lab/multicast.pcap -Z root -n "ether dst $address" 2>/dev/null | wc -l; done
}
