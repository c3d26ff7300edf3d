# shellcheck shell=sh
# linux-linux: the kernel's netfront with the kernel's netback. The reference, and the proof of the lab itself.

guest_start
guest_must up
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2

capture_both_ways "$RESULTS/linux-linux.pcap"

ping_both 20
guest_must witness_start
tcp_both 3
# The kernel's driver grants a page for every packet: that is what the witness must see here, or it
# could not be believed when it sees nothing in the scenario `front`.
grants=$(guest witness_grants)
check_at_least "grants that the witness saw the kernel's netfront make" 1000 "$grants"
saw "$grants grants by the kernel's driver"
