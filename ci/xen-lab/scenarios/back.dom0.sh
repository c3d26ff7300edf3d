# shellcheck shell=sh
# back: the kernel's netfront with our `netback-sim` in dom0: connects, loses nothing, carries a file unharmed.

guest_start 'vif=[]'
backend_start
guest_must up
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
backend_check
stage "$SCENARIO: connected"
ping_both 20
tcp_both 5
stage "$SCENARIO: a file of 64 MiB there and back"
file_both 64
backend_stop
