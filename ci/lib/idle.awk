# The samples of ci/idle, as a table or as JSON. With a limit, status 1 if the driver is woken as often as that.

BEGIN { FS = "\t" }

$2 == "memory" { pss[$1] = $3; rss[$1] = $4; processes[++count] = $1; next }
$2 == "before" { woken[$1, $3] = $5; spent[$1, $3] = $6; next }
{
    # A thread that began meanwhile has all that it did counted.
    threads[$1] = threads[$1] " " $3
    name[$1, $3] = $4
    rate[$1, $3] = $5 - woken[$1, $3]
    cpu[$1, $3] = $6 - spent[$1, $3]
    rate[$1] += rate[$1, $3]
    cpu[$1] += cpu[$1, $3]
}

function per_second(value) { return sprintf("%.2f", value / seconds) }
function percent(value) { return sprintf("%.3f", value / seconds / 1e7) }
function mib(kib) { return sprintf("%.1f", kib / 1024) }
function row(what, wakes, share, one, all) {
    printf "%-20s %9s %8s %8s %8s\n", what, wakes, share, one, all
}

function table(    p, process, t, many, list) {
    row("process, its threads", "wake-ups/s", "CPU %", "PSS MiB", "RSS MiB")
    for (p = count; p >= 1; p--) {
        process = processes[p]
        row(process, per_second(rate[process]), percent(cpu[process]), mib(pss[process]), mib(rss[process]))
        many = split(threads[process], list, " ")
        for (t = 1; t <= many; t++)
            row("  " name[process, list[t]], per_second(rate[process, list[t]]), percent(cpu[process, list[t]]), "", "")
    }
    printf "over %.0f s\n", seconds
}

function report(    p, process, t, many, list) {
    printf "{\"schema\":1,\"seconds\":%.3f,\"processes\":[", seconds
    for (p = count; p >= 1; p--) {
        process = processes[p]
        printf "{\"name\":\"%s\",\"wakeups_per_second\":%s,\"cpu_percent\":%s,\"pss_kib\":%s,\"rss_kib\":%s,\"threads\":[", \
            process, per_second(rate[process]), percent(cpu[process]), pss[process], rss[process]
        many = split(threads[process], list, " ")
        for (t = 1; t <= many; t++)
            printf "{\"name\":\"%s\",\"wakeups_per_second\":%s,\"cpu_percent\":%s}%s", name[process, list[t]], \
                per_second(rate[process, list[t]]), percent(cpu[process, list[t]]), t < many ? "," : ""
        printf "]}%s", p > 1 ? "," : ""
    }
    print "]}"
}

END {
    seconds = end - begin
    if (json) report()
    else table()
    if (limit != "" && rate["netfront"] / seconds >= limit) {
        printf "idle: the driver is woken %s times a second, and the limit is %s\n", per_second(rate["netfront"]), limit > "/dev/stderr"
        exit 1
    }
}
