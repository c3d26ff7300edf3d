#!/bin/sh
# The agent in the guest: waits for commands in the store, runs them, puts their output and status back.
#
# The store is the one way between dom0 and the guest that does not depend on the network under test.
#   lab/command   (dom0 writes)   SEQUENCE DEADLINE SCENARIO COMMAND...
#   data/lab/reply                SEQUENCE STATUS PARTS [OUTPUT], written last; the output in base64
#   data/lab/out/0, 1, ...        an output that is too long for the reply, in PARTS parts
# "data" is the part of its own folder that Xen lets a guest write.

# A guest's node holds 2048 bytes at most, name and permissions included.
PART=1800
# 200 parts are 270 KB of output; what is longer is cut, its end is kept.
LONGEST=270000
# What becomes less than a part in base64, with the reply's numbers.
SHORT=1200
done_sequence=0

# Each program that starts takes an emulated processor some hundredths of a second, and there are a thousand commands.
answer() { # SEQUENCE DEADLINE SCENARIO COMMAND
    {
        printf '. /lab/scenarios/%s.guest.sh\n' "$3"
        printf '%s\n' "$4"
    } >/run/lab/command.sh
    # A group of its own: what a command leaves behind in the foreground ends with it.
    timeout "$2" setsid sh /run/lab/command.sh >/run/lab/output 2>&1 </dev/null
    status=$?
    if [ ! -s /run/lab/output ]; then
        xenstore-write data/lab/reply "$1 $status 0"
    elif [ "$(stat -c %s /run/lab/output)" -le "$SHORT" ]; then
        xenstore-write data/lab/reply "$1 $status 0 $(base64 -w 0 /run/lab/output)"
    else
        write_parts
        xenstore-write data/lab/reply "$1 $status $parts"
    fi
}

# write_parts: a long output's end; PARTS in `parts`.
write_parts() {
    tail -c "$LONGEST" /run/lab/output | base64 -w 0 >/run/lab/output.64
    parts=0
    offset=0
    size=$(wc -c </run/lab/output.64)
    while [ "$offset" -lt "$size" ]; do
        part=$(tail -c "+$((offset + 1))" /run/lab/output.64 | head -c "$PART")
        xenstore-write "data/lab/out/$parts" "$part"
        parts=$((parts + 1))
        offset=$((offset + PART))
    done
}

xenstore-write data/lab/reply "0 0 0"
echo "guest: the agent waits"
# A watch fires once when it is set, and then for every change: nothing is polled, nothing is missed.
xenstore-watch lab/command | while read -r _; do
    command=$(xenstore-read lab/command 2>/dev/null) || continue
    sequence=${command%% *}
    [ "$sequence" != "$done_sequence" ] || continue
    rest=${command#* }
    deadline=${rest%% *}
    rest=${rest#* }
    scenario=${rest%% *}
    read -r up _ </proc/uptime
    echo "${up%.*} s: command $sequence: ${rest#* }"
    answer "$sequence" "$deadline" "$scenario" "${rest#* }"
    done_sequence=$sequence
    read -r up _ </proc/uptime
    echo "${up%.*} s: command $sequence ended with $status"
done
