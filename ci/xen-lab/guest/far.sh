# shellcheck shell=sh
# A far end: a place behind this kernel where every checksum must be right.
#
# Between two kernels of one machine a packet may travel with a blank checksum or as one large segment, so a capture on a vif
# or a TAP proves nothing. Hence a veth pair without offloads, whose far half is in a network namespace: before a packet
# passes it, this kernel cuts it and fills in what is blank, by what came with the packet. A sum that was taken over the wrong
# bytes, that starts at the wrong place, or that is called good and is not, is wrong there for tcpdump to see; and the
# kernel at the far end, which is told nothing about sums, checks each by itself and counts those that are wrong.

FAR_PROCESS=/run/lab/far.pid
FAR_RECORDER=/run/lab/far-recorder.pid

# far PROGRAM ARGUMENT...: runs it there.
far() { nsenter -t "$(cat "$FAR_PROCESS")" -n "$@"; }

# far_start: the pair lab0 (here) and lab1 (there), both up, without addresses.
far_start() {
    # The kernel would look for modprobe where busybox has not put it.
    modprobe veth || return 1
    # That of an earlier scenario, which may have ended anywhere.
    ip link del lab0 2>/dev/null
    # busybox cannot name the second half; the kernel calls it veth0.
    ip link add lab0 type veth && ip link set veth0 name lab1 || return 1
    unshare -n sleep 100000 >/dev/null 2>&1 </dev/null &
    echo $! >"$FAR_PROCESS"
    # Before it has a namespace of its own, lab1 would be moved to this one: without an error, and without an effect.
    tries=50
    until [ "$(readlink "/proc/$(cat "$FAR_PROCESS")/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "no network namespace for the far end"; return 1; }
        sleep 0.1
    done
    # An address that is looked for twice could not be used for a second.
    far sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'
    ip link set lab1 netns "$(cat "$FAR_PROCESS")" || return 1
    far_without_offloads ethtool lab0 || return 1
    far_without_offloads 'far ethtool' lab1 || return 1
    far ip link set lo up && far ip link set lab1 up && ip link set lab0 up
}

# far_without_offloads ETHTOOL INTERFACE
far_without_offloads() {
    # shellcheck disable=SC2086 # words
    {
        $1 -K "$2" tx off sg off tso off gso off gro off >/dev/null
        left=$($1 -k "$2" | grep -E '^(tx-checksumming|scatter-gather|(tcp|generic)-segmentation-offload|generic-receive-offload): on')
    }
    [ -z "$left" ] || { echo "$2 still has" "$left"; return 1; }
}

# far_record FILE: captures all that passes there, whole.
far_record() {
    : >/run/lab/far-tcpdump.txt
    # Not by `far`: the process that is to be ended would be a shell, which ignores that, and not tcpdump.
    nsenter -t "$(cat "$FAR_PROCESS")" -n tcpdump -i lab1 -s 262144 -U -B 8192 -Z root -w "$1" >/run/lab/far-tcpdump.txt 2>&1 </dev/null &
    echo $! >"$FAR_RECORDER"
    tries=100
    until grep -q 'listening on' /run/lab/far-tcpdump.txt; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "tcpdump does not listen at the far end:"; cat /run/lab/far-tcpdump.txt; return 1; }
        sleep 0.1
    done
}

# far_recorded: the capture is complete. It may have been started by another shell, so there is no `wait`.
far_recorded() {
    kill -TERM "$(cat "$FAR_RECORDER")" 2>/dev/null
    tries=100
    while kill -0 "$(cat "$FAR_RECORDER")" 2>/dev/null; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "tcpdump does not end"; return 1; }
        sleep 0.1
    done
}

# sums FILE: of a capture, a line each: right sums of TCP and UDP over IPv4 and IPv6, wrong ones of any kind, and packets of
# more than 1500 bytes.
sums() {
    tcpdump -r "$1" -Z root -n -t -vv 2>/dev/null | awk '
        # The header of IPv4 has a line of its own, before the rest of the packet.
        /^IP \(/ { family = 4; if (length_of("length ") > 1500) long++ }
        /^IP6 \(/ { family = 6; if (length_of("payload length: ") > 1460) long++ }
        /^[A-Z]/ && !/^IP6? \(/ { family = 0 }
        / cksum 0x[0-9a-f]+ \(correct\)/ { right["tcp" family]++ }
        /\[udp sum ok\]/ { right["udp" family]++ }
        /\(incorrect|bad udp cksum|bad cksum|bad icmp6 cksum|wrong icmp cksum/ { wrong++ }
        function length_of(name,    rest) {
            rest = substr($0, index($0, name) + length(name))
            return rest + 0
        }
        END {
            split("tcp4 udp4 tcp6 udp6", kinds, " ")
            for (kind = 1; kind <= 4; kind++) print kinds[kind], right[kinds[kind]] + 0
            print "wrong", wrong + 0
            print "long", long + 0
        }'
}

# sum_errors [far]: packets that the kernel of this end, or of the far one, threw away for a wrong sum.
sum_errors() {
    { ${1:+far} cat /proc/net/snmp && ${1:+far} cat /proc/net/snmp6; } | awk '
        $1 ~ /InCsumErrors$/ { sum += $2 }
        # A line of names, then one of numbers.
        /:/ && $2 !~ /^[0-9-]/ { for (column = 2; column <= NF; column++) is[column] = $column; next }
        /:/ { for (column = 2; column <= NF; column++) if (is[column] == "InCsumErrors") sum += $column }
        END { print sum + 0 }'
}
