# shellcheck shell=sh
# The offloads of an interface, by the short names that a scenario's table has: tx, sg, tso (of IPv4), tso6, gso, gro.
#
# tx are the blank checksums that it may be told to leave: those of IPv6 only with the kernel's netfront, which always has those of
# IPv4.

# offload INTERFACE LIST: switches on what is in the list (commas between, or `-` for none) and off what is not, and sees that it
# is so: the kernel takes a wish that it cannot fulfil without an error.
offload() {
    interface=$1
    list=$2
    set --
    for name in tx sg tso tso6 gso gro; do
        state=off
        case ",$list," in *",$name,"*) state=on ;; esac
        case $name in
            tx) ! ipv4_is_fixed "$interface" || name=tx-checksum-ipv6 ;;
            tso) name=tx-tcp-segmentation ;;
            tso6) name=tx-tcp6-segmentation ;;
        esac
        set -- "$@" "$name" "$state"
    done
    ethtool -K "$interface" "$@" >/dev/null || return 1
    found=$(offload_of "$interface")
    [ "$found" = "$list" ] || { echo "offloads of $interface: wanted $list, found $found"; return 1; }
}

# ipv4_is_fixed INTERFACE: it leaves checksums of IPv4 blank, and nobody can change that.
ipv4_is_fixed() { ethtool -k "$1" | grep -q 'tx-checksum-ipv4: on \[fixed\]'; }

# offload_of INTERFACE: the list of those that are on.
offload_of() {
    ethtool -k "$1" | awk '
        $2 == "on" { on[$1] = 1 }
        $1 == "tx-checksum-ipv4:" && $2 == "on" && $3 == "[fixed]" { fixed = 1 }
        function is(key, name) { if (on[key ":"]) { list = list between name; between = "," } }
        END {
            is(fixed ? "tx-checksum-ipv6" : "tx-checksumming", "tx")
            is("scatter-gather", "sg")
            is("tx-tcp-segmentation", "tso")
            is("tx-tcp6-segmentation", "tso6")
            is("generic-segmentation-offload", "gso")
            is("generic-receive-offload", "gro")
            print list == "" ? "-" : list
        }'
}
