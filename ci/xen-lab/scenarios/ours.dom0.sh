# shellcheck shell=sh
# ours: our `netfront` with our `netback-sim` in dom0, on real Xen: connects, loses nothing, carries a file unharmed.

guest_start 'vif=[]'
backend_start
guest_must front_start
guest_must front_wait
guest_must front_address
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
backend_check
stage "$SCENARIO: connected"
ping_both 20
tcp_both 5
stage "$SCENARIO: a file of 64 MiB there and back"
file_both 64
guest front_log >"$RESULTS/netfront.log"
guest_must front_stop
backend_stop
