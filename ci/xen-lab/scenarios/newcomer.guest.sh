# shellcheck shell=sh source=/dev/null
# newcomer, the guest's side: a Debian with systemd, and what its administrator does with the package.
. /lab/scenarios/take-over.guest.sh

# As udev calls it; found once, since the TAP of a take-over is not below the vif.
# shellcheck disable=SC2034 # take-over.guest.sh's
interface=$(cat /run/lab/interface 2>/dev/null)

# machine_now: what an installation changes, and a purge has to put back.
machine_now() {
    find / -xdev \( -path /lab -o -path /tmp -o -path /var/tmp -o -path /var/log -o -path /var/lib/dpkg -o -path /var/lib/systemd \) \
        -prune -o -print | sort
    # Only users and groups: their shadow files are rewritten.
    cat /etc/passwd /etc/group
    stat -c '%n %a %U:%G' /dev/xen/* /dev/net/tun
    find /run -path '/run/netfront*'
    cut -d' ' -f1 /proc/modules | sort
    echo "limit $(front_limit)"
    systemctl list-unit-files --no-legend --no-pager 'netfront*'
    systemctl --failed --no-legend --no-pager
}

# debian_delivered: the interface in use, of the modules only gntalloc, as another program wanted it, and no netfront.
debian_delivered() {
    udevadm settle || return 1
    ls /sys/bus/xen/devices/vif-0/net >/run/lab/interface || return 1
    interface=$(cat /run/lab/interface)
    ip addr add 10.77.0.2/24 dev "$interface" && ip link set "$interface" up || return 1
    ip route add default via 10.77.0.1 || return 1
    # One that nobody would find again by asking: it has to be carried over.
    ip neigh add 10.77.0.99 lladdr 02:00:00:00:00:99 nud permanent dev "$interface" || return 1
    iperf3 -s -D >/dev/null 2>&1
    for module in xen-evtchn tun; do modprobe -r "$module" || return 1; done
    modprobe xen-gntalloc && udevadm settle || return 1
    ! command -v netfront || return 1
    # passwd's programs keep a copy of the file before, and these two everywhere.
    for file in passwd- group- shadow- gshadow- subuid subgid subuid- subgid-; do touch "/etc/$file"; done
    machine_now >/run/lab/machine-before
}

# dpkg_does ARGUMENT...: its output is kept, and shown if it fails.
dpkg_does() {
    DEBIAN_FRONTEND=noninteractive dpkg "$@" >/run/lab/dpkg.txt 2>&1 || { cat /run/lab/dpkg.txt; return 1; }
}

installed() {
    dpkg_does -i /lab/packages/netfront.deb || return 1
    getent passwd netfront && netfront --version || return 1
    # What the package's scripts say they did.
    if [ "$(driver_of_vif)" != vif ] || [ "$(front_limit)" != 4096 ]; then
        echo "driver $(driver_of_vif), limit $(front_limit)"
        return 1
    fi
    for node in evtchn gntalloc xenbus; do
        [ "$(stat -c '%a %G' "/dev/xen/$node")" = "660 netfront" ] || { stat "/dev/xen/$node"; return 1; }
    done
}

# probed_installed: what is left after the installation is that the interface is in use; and --fix mends what somebody broke.
probed_installed() {
    probe_says 69 'netfront run --vif 0 --take-over' || return 1
    # For ci/pictures.
    cp /run/lab/probe.txt /run/lab/probe-first.txt
    modprobe -r xen-evtchn || return 1
    probe_says 78 'modprobe xen-evtchn' || return 1
    front_limit 500 >/dev/null || return 1
    probe_says 69 'mended .*parameters/limit' --fix || return 1
    [ -c /dev/xen/evtchn ] && [ "$(front_limit)" -ge 772 ] && [ "$(driver_of_vif)" = vif ]
}

property() { systemctl show netfront@0 -P "$1"; }

# logs: of the driver in the foreground and of the service.
logs() {
    cat /run/lab/netfront.log 2>/dev/null
    journalctl -u netfront@0 -o short-monotonic --no-pager
    systemctl status netfront@0 systemd-networkd --no-pager -l
    ip addr
}

# service_start: with the example configuration, for a vif whose interface is not in use.
service_start() {
    ip link set "$interface" down || return 1
    cp /usr/share/doc/netfront/examples/vif0.toml /etc/netfront/vif0.toml || return 1
    systemctl enable --now netfront@0 || { logs; return 1; }
    [ "$(property ActiveState)" = active ] || { logs; return 1; }
}

# service_carries: xn0 has the address that systemd-networkd gives it, and pings are answered.
service_carries() {
    if ! address_within 20 || ! front_answered; then
        logs
        return 1
    fi
}

# address_within SECONDS: of the service's TAP.
address_within() {
    tries=$(($1 * 5))
    until ip addr show dev xn0 2>/dev/null | grep -q 'inet 10.77.0.2/24'; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "xn0 has no address within $1 s"; return 1; }
        sleep 0.2
    done
}

service_user() { stat -c %U "/proc/$(property MainPID)"; }

service_capabilities() { sed -n 's/^CapEff:[^0-9a-f]*//p' "/proc/$(property MainPID)/status"; }

# upgraded: while the service runs; the new program drives the vif.
upgraded() {
    old=$(property MainPID)
    dpkg_does -i /lab/packages/newer.deb || return 1
    # shellcheck disable=SC2016 # dpkg-query's
    version=$(dpkg-query -W -f '${Version}' netfront)
    new=$(property MainPID)
    if [ "$version" != 99.0 ] || [ "$new" = "$old" ] || [ "$(property ActiveState)" != active ] ||
        [ "$(readlink "/proc/$new/exe")" != /usr/bin/netfront ]; then
        echo "version $version, process $old before and $new now, $(property ActiveState), $(readlink "/proc/$new/exe")"
        logs
        return 1
    fi
    service_carries
}

# kernel_has: its driver has the vif, and udev has named the interface as before.
kernel_has() {
    udevadm settle
    if [ "$(driver_of_vif)" != vif ] || [ ! -e "/sys/bus/xen/devices/vif-0/net/$interface" ]; then
        echo "driver $(driver_of_vif), interface $(ls /sys/bus/xen/devices/vif-0/net), wanted vif and $interface"
        return 1
    fi
}

service_given_back() {
    systemctl disable --now netfront@0 || { logs; return 1; }
    [ "$(property Result)" = success ] || { echo "it ended with $(property Result)"; logs; return 1; }
    [ ! -e /sys/class/net/xn0 ] || { echo "xn0 is still there"; return 1; }
    netfront give --vif 0 && kernel_has
}

# purged: dpkg stops the service and gives the vif back; then nothing is there that was not before.
purged() {
    dpkg_does -P netfront || { logs; return 1; }
    kernel_has || { cat /run/lab/dpkg.txt; return 1; }
    machine_now >/run/lab/machine-after
    diff -u /run/lab/machine-before /run/lab/machine-after || { cat /run/lab/dpkg.txt; return 1; }
    ip addr add 10.77.0.2/24 dev "$interface" && ip link set "$interface" up && front_answered
}
