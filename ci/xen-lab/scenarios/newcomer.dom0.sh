# shellcheck shell=sh
# newcomer: Debian with systemd: dpkg -i, probe --fix, an interface in use taken over under a TCP session and given back, the service upgraded under a session, purge leaves nothing.
# guests: pv
# deadline: 600

# shellcheck source=/dev/null
. /lab/steps.sh

# systemd takes an emulated processor half a minute; the image lies in the guest's memory.
# shellcheck disable=SC2034 # guest_boot's
BOOT_DEADLINE=180
guest_start 'memory=512' 'ramdisk="/boot/debian.img"' 'extra="console=hvc0 quiet systemd.show_status=1"'
saw "systemd and the agent up after $(guest cut -d. -f1 /proc/uptime) s"

step "as delivered" debian_delivered
saw "udev calls the interface $(guest cat /run/lab/interface)"
within 30 "the guest answers" ping -c 1 -W 1 10.77.0.2
guest_must kernel_log_from_here

# One session, from before the package is there until after netfront has let go; at a rate that leaves the emulated processor
# time for the administrator, and loses no ping for lack of it.
step "installed under a session" 'session_start 900 -b 10M && installed && session_moves'
guest cat /run/lab/dpkg.txt >"$RESULTS/dpkg-install.txt"
step "probe" probed_installed
guest cat /run/lab/probe-first.txt >"$RESULTS/probe.txt"
saw "dpkg -i leaves the interface alone; probe --fix loads a module and raises the limit"
guest_must remember

under_one_session
step "not confirmed within 15 s" 'session_start 900 -b 10M && take_over --confirm-within 15 && gave_up_after 15 && same_as_before && session_moves'
# The default, as somebody has it who locked himself out.
step "taken over with nobody to confirm" 'take_over && session_moves'
ping_both 5
step "not confirmed within 60 s" 'gave_up_after 60 && same_as_before && session_moves && session_stop'
guest cat /run/lab/session.txt >"$RESULTS/session-not-confirmed.txt"
saw "given back by itself without a confirmation, within 15 s and within the 60 s that are the default, under one TCP session"
guest front_log >"$RESULTS/netfront.log"

step "the service starts" 'service_start && service_carries'
check "user of the driver" netfront "$(guest service_user)"
check "its capabilities (12 is CAP_NET_ADMIN)" 0000000000001000 "$(guest service_capabilities)"
ping_both 5
step "upgraded under a session" 'session_start 900 -b 10M && upgraded && session_moves && session_stop'
guest cat /run/lab/dpkg.txt >"$RESULTS/dpkg-upgrade.txt"
guest cat /run/lab/session.txt >"$RESULTS/session-upgrade.txt"
saw "the service without root; upgraded under a TCP session, which lives on"
step "the service stops, the vif is given back" service_given_back
step "purged while the service runs" 'service_start && service_carries && purged'
guest logs >"$RESULTS/logs.txt"
guest cat /run/lab/dpkg.txt >"$RESULTS/dpkg-purge.txt"
saw "purge while it runs: the vif is the kernel's; files, users, modules, limit and device nodes as before"
check "lines of level warning or above in the guest's log" none "$(guest kernel_warnings)"
