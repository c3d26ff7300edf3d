# shellcheck shell=sh
# package: the Debian package's program as the user netfront, with its group's devices and CAP_NET_ADMIN, as the service runs it: loses no ping.
# guests: pv

guest_start
guest kernel_log_from_here
guest_must package_prepare
guest_must package_start
guest_must front_wait
check "user of the driver" netfront "$(guest package_user)"
check "its capabilities (12 is CAP_NET_ADMIN)" 0000000000001000 "$(guest package_capabilities)"
guest_must front_address
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
ping_both 20
tcp_both 2
guest front_log >"$RESULTS/netfront.log"
guest_must front_stop
check "lines of level warning or above in the guest's log" none "$(guest kernel_warnings)"
saw "connected, 20 pings each way and TCP, without root"
