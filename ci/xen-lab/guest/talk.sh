# shellcheck shell=sh
# What a scenario's dom0 script may say: start the guest, run things in it, check what was found.
# Its own variables: SCENARIO (its name), RESULTS (a folder that comes out to the host).

RESULTS=/results/$SCENARIO
GUEST_NAME=guest
# The second disk: a guest that is saved does not fit into dom0's memory.
# shellcheck disable=SC2034 # for scenarios
SAVED=$(disk 1024)
: >"$RESULTS/seen"

# fail WHAT: the scenario ends here.
fail() {
    echo "$(now) s: failed: $*"
    # The first failure is the one that explains the others.
    [ -s "$RESULTS/failed" ] || echo "$*" >"$RESULTS/failed"
    # A command substitution would only leave its own shell: end the script itself.
    kill -TERM "$$"
    exit 1
}
trap 'exit 1' TERM

# saw WHAT: goes on the scenario's line in the summary.
saw() {
    echo "$(now) s: saw: $*"
    echo "$*" >>"$RESULTS/seen"
}

# check WHAT WANTED FOUND
check() {
    [ "$2" = "$3" ] || fail "$1: wanted $2, found ${3:-nothing}"
    echo "$(now) s: ok: $1: $3"
}

# check_at_least WHAT LEAST FOUND (whole numbers)
check_at_least() {
    case $3 in '' | *[!0-9]*) fail "$1: wanted at least $2, found ${3:-nothing}" ;; esac
    [ "$3" -ge "$2" ] || fail "$1: wanted at least $2, found $3"
    echo "$(now) s: ok: $1: $3"
}

# within SECONDS WHAT COMMAND...: until the command succeeds.
within() {
    tries=$(($1 * 5))
    what=$2
    seconds=$1
    shift 2
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || fail "$what: not so within $seconds s"
        sleep 0.2
    done
    echo "$(now) s: ok: $what"
}

# guest_start [SETTING...]: creates the guest and waits until its agent answers. A SETTING is a line that stands
# instead of the one in the guest's configuration. One with a ramdisk of its own is another guest, and boots.
guest_start() {
    # shellcheck disable=SC2153 # from /lab/settings
    case "$SNAPSHOT $*" in
        yes*ramdisk=*) guest_boot "$@" ;;
        yes*)
            snapshot_once
            guest_from_snapshot "$@"
            ;;
        *) guest_boot "$@" ;;
    esac
    # A fresh one each time: a server whose client was killed in the middle answers "busy".
    killall iperf3 2>/dev/null
    iperf3 -s -D >/dev/null 2>&1
    stage "$SCENARIO: the guest is up (domain $DOMID)"
}

# guest_boot [SETTING...]: a guest that boots.
#
# An emulated hardware container dies once in a while in the guest kernel's first second, before anything of ours
# runs in it: then there is another one, and the scenario's line says so. A PV guest has no such excuse.
guest_boot() {
    for attempt in 1 2 3; do
        guest_create "$@"
        if await_node "$NODE/data/lab/reply" "0 0 0" "$BOOT_DEADLINE"; then
            break
        elif xl domid "$GUEST_NAME" >/dev/null 2>&1; then
            fail "the guest's agent did not answer within $BOOT_DEADLINE s: see guest-console.txt"
        fi
        mv /var/log/xen/console/guest-guest.log "$RESULTS/guest-console-of-attempt-$attempt.txt" 2>/dev/null
        [ "$GUEST" != pv ] || fail "the guest died while it booted: see guest-console-of-attempt-1.txt"
        ! grep -q 'guest: up after' "$RESULTS/guest-console-of-attempt-$attempt.txt" 2>/dev/null ||
            fail "the guest died after it was up: see guest-console-of-attempt-$attempt.txt"
        [ "$attempt" -lt 3 ] || fail "the guest's kernel died three times while it booted: see guest-console-of-attempt-*.txt"
        saw "the guest's kernel died while it booted, attempt $attempt"
    done
}

# guest_create [SETTING...]: the domain, with a node for the agent's commands.
guest_create() {
    xl create "/lab/guests/$GUEST.cfg" "$@" || fail "xl create /lab/guests/$GUEST.cfg $*"
    guest_named
    echo 0 >/run/lab/sequence
    command_node
}

# snapshot_once: a kind of guest that takes minutes to boot does so once for all scenarios, without a vif,
# and is kept on a disk of its own as it is when its agent waits for the first command.
snapshot_once() {
    [ ! -e /run/lab/snapshot ] || return 0
    guest_boot 'vif=[]'
    stage "$SCENARIO: the guest has booted and is saved, for all scenarios"
    xl save "$GUEST_NAME" "$(disk 768)" >"$RESULTS/xl-save-snapshot.txt" 2>&1 || fail "xl save: $(tail -n 1 "$RESULTS/xl-save-snapshot.txt")"
    : >/run/lab/snapshot
}

# guest_from_snapshot [SETTING...]: the guest that has booted, with the vif that this scenario wants.
guest_from_snapshot() {
    { cat "/lab/guests/$GUEST.cfg" && printf '%s\n' "$@"; } >/run/lab/guest.cfg
    xl restore /run/lab/guest.cfg "$(disk 768)" >"$RESULTS/xl-restore-snapshot.txt" 2>&1 ||
        fail "xl restore: $(tail -n 1 "$RESULTS/xl-restore-snapshot.txt")"
    echo 0 >/run/lab/sequence
    guest_moved
    guest_must true
    # The guest's kernel looks for new devices when it boots and when their nodes change, not when it is restored.
    for vif in $(xenstore-list "$NODE/device/vif" 2>/dev/null); do
        xenstore-write "$NODE/device/vif/$vif/state" "$(xenstore-read "$NODE/device/vif/$vif/state")"
    done
}

# guest_named: the variables that hold the guest's number.
guest_named() {
    DOMID=$(xl domid "$GUEST_NAME") || fail "no domain id of the guest"
    # shellcheck disable=SC2034 # for scenarios
    VIF=vif$DOMID.0
    NODE=/local/domain/$DOMID
}

# command_node: the node through which the agent gets its commands, with the last one, which it has done, in it.
command_node() {
    xenstore-write "$NODE/lab/command" "$(cat /run/lab/sequence) 0 - -"
    xenstore-chmod "$NODE/lab" n0 "r$DOMID"
    xenstore-chmod "$NODE/lab/command" n0 "r$DOMID"
}

# guest_moved: after a restore the guest has another number, and a folder in the store that knows nothing of the agent.
guest_moved() {
    guest_named
    command_node
}

# await_node PATH PREFIX SECONDS [COMMAND...]: until the node's value begins so; the value is in ANSWER. A watch, not a
# poll: a poll would take time from what is being measured. A COMMAND that makes the node change is run when the watch stands.
await_node() {
    path=$1
    prefix=$2
    pipe=/run/lab/watch.$$
    [ -p "$pipe" ] || mkfifo "$pipe"
    timeout "$3" xenstore-watch "$path" >"$pipe" 2>/dev/null &
    watch=$!
    shift 3
    found=no
    while read -r _; do
        if [ $# -gt 0 ]; then
            # A watch fires once when it is set. What it fires for after that is the answer.
            "$@" </dev/null || break
            shift $#
            continue
        fi
        ANSWER=$(xenstore-read "$path" 2>/dev/null)
        case "$ANSWER " in
            "$prefix "*) found=yes && break ;;
        esac
        # The domain is gone, and its nodes with it.
        xenstore-exists "$NODE" || break
    done <"$pipe"
    kill "$watch" 2>/dev/null
    wait "$watch" 2>/dev/null
    [ "$found" = yes ]
}

# guest COMMAND...: runs it in the guest, where the functions of the scenario's guest script are known.
# Gives its output and status. GUEST_DEADLINE seconds at most (default 60).
guest() {
    read -r sequence </run/lab/sequence
    sequence=$((sequence + 1))
    echo "$sequence" >/run/lab/sequence
    limit=${GUEST_DEADLINE:-60}
    # The agent itself ends the command at its deadline; past that the guest is stuck.
    await_node "$NODE/data/lab/reply" "$sequence" $((limit + 15)) xenstore-write "$NODE/lab/command" "$sequence $limit $SCENARIO $*" ||
        fail "the guest did not answer within $((limit + 15)) s: $*"
    # shellcheck disable=SC2086 # SEQUENCE STATUS PARTS [OUTPUT], see agent.sh
    set -- $ANSWER
    status=$2
    parts=$3
    [ $# -lt 4 ] || printf '%s' "$4" | base64 -d
    [ "$parts" = 0 ] || output_in_parts "$parts"
    return "$status"
}

# output_in_parts PARTS: what did not fit into the reply.
output_in_parts() {
    part=0
    while [ "$part" -lt "$1" ]; do
        xenstore-read "$NODE/data/lab/out/$part" | tr -d '\n'
        part=$((part + 1))
    done | base64 -d
}

# guest_must COMMAND...: the same, and a status other than 0 fails the scenario.
guest_must() {
    guest "$@" || fail "in the guest, '$*' ended with $?"
}
