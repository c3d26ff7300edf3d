# shellcheck shell=sh source=/dev/null
# package, the guest's side: what the package's scripts, udev and systemd would do, where there is none of them.
. /lab/scenarios/front.guest.sh

package_prepare() {
    [ -x /usr/bin/netfront ] || { echo "the package is not unpacked here"; return 1; }
    # As the package's sysusers.d has it; the guest's busybox cannot add users.
    echo 'netfront:x:990:' >>/etc/group
    echo 'netfront:x:990:990::/:/bin/false' >>/etc/passwd
    # 60-netfront.rules, and what udev does for the TAP's device everywhere.
    chgrp netfront /dev/xen/evtchn /dev/xen/gntalloc /dev/xen/xenbus || return 1
    chmod 660 /dev/xen/evtchn /dev/xen/gntalloc /dev/xen/xenbus || return 1
    chmod 666 /dev/net/tun || return 1
    # RuntimeDirectory=
    mkdir -p /run/netfront && chown netfront:netfront /run/netfront || return 1
    cp /usr/share/doc/netfront/examples/vif0.toml /etc/netfront/vif0.toml
}

# As netfront@.service has it.
package_start() {
    : >/run/lab/netfront.log
    /usr/bin/netfront take --vif 0 || return 1
    /lab/programs/setpriv --reuid netfront --regid netfront --clear-groups --no-new-privs --bounding-set=-all,+net_admin \
        --inh-caps=-all,+net_admin --ambient-caps=-all,+net_admin \
        /usr/bin/netfront run --vif 0 --config /etc/netfront/vif0.toml >>/run/lab/netfront.log 2>&1 </dev/null &
    echo $! >/run/lab/netfront.pid
}

package_user() { stat -c %U "/proc/$(cat /run/lab/netfront.pid)"; }

package_capabilities() { sed -n 's/^CapEff:[^0-9a-f]*//p' "/proc/$(cat /run/lab/netfront.pid)/status"; }
