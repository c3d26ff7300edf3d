# shellcheck shell=sh source=/dev/null
# observe, the guest's side: the driver of the scenario `front`, and everything that can be asked of it and told to it.
. /lab/scenarios/front.guest.sh

# says WHAT PATTERN FILE: a line of it is so.
says() {
    grep -qE "$2" "$3" || {
        echo "$1: no line with: $2"
        head -n 40 "$3"
        return 1
    }
}

# counter NAME: of the text of `netfront stats`.
counter() { netfront stats --vif 0 | sed -n "s/^ *$1: //p"; }

status_told() {
    netfront status >/run/lab/status.txt || return 1
    says status '^vif 0 +connected for .*00:16:3e:00:00:02, MTU 1500, carrier on' /run/lab/status.txt || return 1
    says status 'frontend Connected \(4\), backend Connected \(4\) in domain 0: /local/domain/0/backend/vif/' /run/lab/status.txt || return 1
    # What Linux' netback offers.
    says status 'backend offers .*sg .*gso-tcpv4' /run/lab/status.txt || return 1
    says status 'rx [0-9]+ of 256 slots posted' /run/lab/status.txt || return 1
    netfront status --vif 0 --json >/run/lab/status.json || return 1
    for word in '"schema": 1' '"connected": true' '"mode": "adaptive"' '"carrier": true'; do
        says 'status --json' "$word" /run/lab/status.json || return 1
    done
}

# stats_told: pages in one place each, packets that pass, and a meaning for each counter.
stats_told() {
    before=$(counter rx_packets)
    sleep 1
    [ "$(counter rx_packets)" -gt "$before" ] || { echo "rx_packets stays at $before"; return 1; }
    # Levels are told one after the other while packets pass: of a few looks one is sound.
    tries=10
    until conserved; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "pages: $(cat /run/lab/pages)"; return 1; }
        sleep 0.2
    done
    netfront stats --explain >/run/lab/explain.txt || return 1
    unexplained=$(sed -n 's/^ *\([a-z0-9_]*\): [0-9]*$/\1/p' /run/lab/stats.txt | while read -r name; do
        grep -q "^$name " /run/lab/explain.txt || echo "$name"
    done)
    [ -z "$unexplained" ] || { echo "nothing explains $unexplained"; return 1; }
}

# conserved: each page is in one place.
conserved() {
    netfront stats --vif 0 >/run/lab/stats.txt
    awk '
        $1 == "pool_granted:" { granted = $2 }
        $1 == "pool_free:" || $1 == "pool_posted:" || $1 == "pool_leased:" || $1 == "pool_quarantined:" { sum += $2 }
        END { print "granted " granted ", in all places " sum; exit granted == 0 || sum != granted }' /run/lab/stats.txt >/run/lab/pages
}

# top_told: one table, one row, in which packets pass.
top_told() {
    netfront top --interval 2 --count 1 >/run/lab/top.txt || return 1
    awk '$1 == "0" && $2 == "up" && $3 > 0 && $5 > 0 { seen = 1 } END { exit !seen }' /run/lab/top.txt || {
        echo "no row of a vif that carries packets both ways:"
        cat /run/lab/top.txt
        return 1
    }
    netfront top --interval 1 --count 1 --json >/run/lab/top.json && says 'top --json' '"schema":1' /run/lab/top.json
}

# trace_told LINES: so many, of both rings, each sound.
trace_told() {
    netfront trace --vif 0 --count "$1" --seconds 30 >/run/lab/trace.txt 2>/run/lab/trace.err || { cat /run/lab/trace.err; return 1; }
    [ "$(wc -l </run/lab/trace.txt)" = "$1" ] || { echo "$(wc -l </run/lab/trace.txt) lines of $1"; return 1; }
    for what in 'rx request +id [0-9]+ gref [0-9]+' 'rx response id .* status okay' 'tx request +id .* size [0-9]+' 'tx response id [0-9]+ status okay'; do
        says trace "$what" /run/lab/trace.txt || return 1
    done
}

# captured PACKETS: into a file, and what it says of it.
captured() {
    netfront capture --vif 0 --write /run/lab/capture.pcap --count "$1" --seconds 30 --json >/run/lab/capture.json || return 1
    says 'capture --json' "\"recorded\":$1," /run/lab/capture.json && says 'capture --json' '"dropped":0' /run/lab/capture.json
}

# metrics_told: the same figures by HTTP, in the file and in the counters; what rises does.
metrics_told() {
    before=$(counter rx_packets)
    wget -q -O /run/lab/metrics.txt http://127.0.0.1:9477/metrics || { echo "no answer at 127.0.0.1:9477"; return 1; }
    after=$(counter rx_packets)
    found=$(sed -n 's/^netfront_rx_packets_total{vif="0"} //p' /run/lab/metrics.txt)
    if [ "${found:-0}" -lt "$before" ] || [ "$found" -gt "$after" ]; then
        echo "netfront_rx_packets_total is ${found:-missing}, wanted $before to $after"
        return 1
    fi
    says metrics '^netfront_connected\{vif="0"\} 1$' /run/lab/metrics.txt || return 1
    sed -n 's/{.*//; /^netfront/p' /run/lab/metrics.txt >/run/lab/metrics.names
    sed -n 's/{.*//; /^netfront/p' /run/lab/vif0.prom | cmp -s - /run/lab/metrics.names || { echo "the file has other names"; return 1; }
    # Written every 15 seconds.
    first=$(sed -n 's/^netfront_process_up_seconds{vif="0"} //p' /run/lab/vif0.prom)
    tries=100
    while [ "$(sed -n 's/^netfront_process_up_seconds{vif="0"} //p' /run/lab/vif0.prom)" = "$first" ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "the file is not renewed"; return 1; }
        sleep 0.3
    done
}

# paused_stays: nothing is taken out of the ring, and whoever asks is told why.
paused_stays() {
    netfront pause --vif 0 || return 1
    before=$(counter rx_packets)
    sleep 2
    [ "$(counter rx_packets)" = "$before" ] || { echo "packets pass: $before, then $(counter rx_packets)"; return 1; }
    netfront status >/run/lab/status.txt && says 'status of a paused vif' 'PAUSED' /run/lab/status.txt
}

resumed() { netfront resume --vif 0; }

# in_mode MODE: it is told, and kept.
in_mode() {
    netfront mode "$1" --vif 0 >/run/lab/mode.txt || return 1
    says mode "^vif 0: $1$" /run/lab/mode.txt || return 1
    netfront mode --vif 0 >/run/lab/mode.txt && says mode "^vif 0: $1$" /run/lab/mode.txt
}

# rounds_and_events: in a second. A driver that polls goes on without events.
rounds_and_events() {
    rounds=$(counter engine_rounds)
    events=$(counter events)
    sleep 1
    echo "$(($(counter engine_rounds) - rounds)) $(($(counter events) - events))"
}

# slept SECONDS: wake-ups of the driver's threads meanwhile, its processor time in ticks of 10 ms, and KiB of memory (PSS).
slept() {
    pid=$(cat /run/lab/netfront.pid)
    before="$(woken) $(ticks)"
    sleep "$1"
    after="$(woken) $(ticks)"
    echo "$(($(word 1 "$after") - $(word 1 "$before"))) $(($(word 2 "$after") - $(word 2 "$before"))) $(awk '/^Pss:/ { print $2; exit }' "/proc/$pid/smaps_rollup")"
}
woken() { cat "/proc/$pid/task"/*/status | awk '/^voluntary_ctxt_switches:/ { sum += $2 } END { print sum + 0 }'; }
ticks() { awk '{ print $14 + $15 }' "/proc/$pid/stat"; }
word() { echo "$2" | cut -d' ' -f"$1"; }

kicked() {
    before=$(counter notify_sent)
    netfront kick --vif 0 || return 1
    [ "$(counter notify_sent)" -gt "$before" ] || { echo "nobody was notified"; return 1; }
}

# echo_c_start: the example in C, with the vif that was attached.
echo_c_start() {
    /lab/programs/echo-c --vif 1 --address 10.77.0.3 >/run/lab/echo-c.txt 2>&1 </dev/null &
    echo $! >/run/lab/echo-c.pid
    tries=150
    until grep -q '^echo at 00:16:3e:00:00:03, MTU 1500' /run/lab/echo-c.txt; do
        kill -0 "$(cat /run/lab/echo-c.pid)" 2>/dev/null || { echo "the example in C ended:"; cat /run/lab/echo-c.txt; return 1; }
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "the example in C does not start:"; cat /run/lab/echo-c.txt; return 1; }
        sleep 0.2
    done
}

# echo_c_stop LEAST: it ends in order, and says how many packets there were.
echo_c_stop() {
    kill -TERM "$(cat /run/lab/echo-c.pid)"
    tries=50
    while kill -0 "$(cat /run/lab/echo-c.pid)" 2>/dev/null; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "the example in C does not end"; return 1; }
        sleep 0.2
    done
    packets=$(sed -n 's/^\([0-9]*\) packets$/\1/p' /run/lab/echo-c.txt)
    [ "${packets:-0}" -ge "$1" ] || { echo "packets that it saw: ${packets:-none}"; cat /run/lab/echo-c.txt; return 1; }
}

# stopped: by the control socket; the file of metrics goes, since it would be taken for the present.
stopped() {
    netfront stop --vif 0 || return 1
    tries=50
    while front_alive; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "it does not end"; front_threads; return 1; }
        sleep 0.2
    done
    [ ! -e /run/lab/vif0.prom ] || { echo "the file of metrics is still there"; return 1; }
}

logs() { front_log; }
