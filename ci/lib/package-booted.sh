#!/bin/bash
# The package in a booted Debian: the service under a real systemd, on a simulated Xen. Runs inside of the container
# that ci/package-test starts; /packages has old.deb, new.deb and netback-sim.
set -u
sim=/run/xen-sim/socket

check() {
  local what=$1
  shift
  if "$@" >/packages/said 2>&1; then
    echo "ok      booted: $what"
  else
    echo "FAILED  booted: $what"
    sed 's/^/    /' /packages/said | tail -n 20
  fi
}
property() { systemctl show netfront@0 -P "$1"; }
status_has() { grep -q "$1" "/proc/$(property MainPID)/status"; }
logged() { journalctl -u netfront@0 -o cat "${@:2}" | grep -q -- "$1"; }
# within SECONDS COMMAND...
within() {
  local tries=$(($1 * 5))
  shift
  until "$@"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || return 1
    sleep 0.2
  done
}
# The peer is a TAP of the backend in a network namespace of its own.
pings() {
  within 20 ip link show xn0 up >/dev/null 2>&1
  ip addr replace 10.77.78.2/24 dev xn0
  within 20 ping -q -c 1 -W 1 10.77.78.1
}
restarted() { [ "$(property NRestarts)" -ge 1 ] && [ "$(property ActiveState)" = active ]; }

mkdir -p /run/xen-sim
chmod 755 /run/xen-sim
ip netns add back
# Whoever may connect: the service is not root. The simulated Xen, which the backend starts, outlives it.
systemd-run -q --unit=backend -p UMask=0000 -p KillMode=process /packages/netback-sim serve --sim "$sim" --tap vif1.0 --netns back
within 20 ip -n back link show vif1.0 >/dev/null 2>&1
ip -n back addr add 10.77.78.1/24 dev vif1.0

check "the package installs" dpkg -i /packages/old.deb
mkdir -p /etc/systemd/system/netfront@0.service.d
cat >/etc/netfront/vif0.toml <<END
sim = "$sim"
control = "/run/netfront/vif0.sock"
tap = "xn0"
END
# There is no Xen here to take a vif from; and nobody wants to wait half a minute for the watchdog.
cat >/etc/systemd/system/netfront@0.service.d/simulated.conf <<END
[Service]
ExecStartPre=
WatchdogSec=4
END
systemctl daemon-reload

check "it starts, and is ready when it is connected" systemctl start netfront@0
# The watchdog's tick adds more to it.
says_connected() { [[ $(property StatusText) == connected* ]]; }
check "it says so" says_connected
check "it is not root" test "$(stat -c %U "/proc/$(property MainPID)")" = netfront
check "it may configure networks and nothing else" status_has '^CapEff:.0000000000001000$'
check "its system calls are filtered" status_has '^Seccomp:.2$'
check "it can gain no rights" status_has '^NoNewPrivs:.1$'
check "pings cross" pings
check "it answers root" netfront stats --control /run/netfront/vif0.sock
check "its messages have priorities, which are not part of the text" logged 'vif 0 is connected' -p info
check "no message shows the number" bash -c "! journalctl -u netfront@0 -o cat | grep -q '^<[0-9]>'"

# A backend that comes anew, as after a migration: its interface too.
systemctl restart backend
within 20 ip -n back link show vif1.0 >/dev/null 2>&1
ip -n back addr add 10.77.78.1/24 dev vif1.0
announced() { netfront stats --control /run/netfront/vif0.sock | grep -q '^ *tap_announced: *[1-9]'; }
check "after a reconnect the TAP's address is announced" within 30 announced
check "and nothing kept it from being read" bash -c "! journalctl -u netfront@0 -o cat | grep -q 'cannot be read'"
check "pings cross after the reconnect" pings

printf 'verbose = 1\nscrub = true\n' >>/etc/netfront/vif0.toml
check "it reloads" systemctl reload netfront@0
check "and says what needs a restart" within 5 logged 'changes of scrub need a restart' -p warning
check "and runs on" test "$(property ActiveState)" = active

kill -STOP "$(property MainPID)"
check "the watchdog ends a driver that stands still, and it is started again" within 40 restarted
check "pings cross again" pings

before=$(property MainPID)
check "it upgrades while it runs" dpkg -i /packages/new.deb
check "the new one is started" test "$(property MainPID)" != "$before" -a "$(property ActiveState)" = active
check "pings cross after the upgrade" pings

began=$(date +%s)
check "it stops" systemctl stop netfront@0
check "in a few seconds" test $(($(date +%s) - began)) -lt 15
check "with success" test "$(property Result)" = success
check "the TAP is gone" bash -c '! ip link show xn0'

check "removal of the service while it runs" bash -c 'systemctl start netfront@0 && dpkg -r netfront'
check "nothing runs any more" bash -c '! pgrep -x netfront && ! systemctl is-active netfront@0'
check "purge" dpkg -P netfront
check "no user is left" bash -c '! getent passwd netfront'
check "no unit has failed" test -z "$(systemctl --failed --no-legend)"
journalctl -u netfront@0 --no-pager >/packages/journal
