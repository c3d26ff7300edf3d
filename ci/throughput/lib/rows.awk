# measures.tsv of the scenario `compare` to rows, a line each, columns by tabs:
#   test driver rate unit offered lost-% dom0-CPU guest-CPU CPU-unit ratio why-not
# What is unknown is "-". Rows of one test stand together, since they are what is to be compared; the first
# driver is what the others' ratio is to.

BEGIN { FS = OFS = "\t" }

# A number as awk writes it: large ones may have an exponent.
function known(value) { return value ~ /^[0-9][0-9.]*(e[+-]?[0-9]+)?$/ }
function number(value, form) { return known(value) ? sprintf(form, value) : "-" }
# quotient FORM OF BY: "-" when one of them is unknown, or the divisor is nothing.
function quotient(form, of, by) { return known(of) && known(by) && by > 0 ? sprintf(form, of / by) : "-" }

{
    driver = $1; test = $2; seconds = $3; sent = $4; delivered = $5; bytes = $6; dom0 = $7; guest = $8; ping = $9; why = $10
    if (!(test in tests)) { tests[test] = 1; order[++count] = test }
    if (!(driver in drivers)) { drivers[driver] = 1; names[++many] = driver }

    offered = lost = spent0 = spent1 = "-"
    better = "more"
    if (test == "ping") {
        rate = number(ping, "%.3f"); unit = "ms"; per = "-"
        better = "less"
    } else if (test ~ /^tcp/) {
        rate = quotient("%.0f", bytes * 8 / 1e6, seconds); unit = "Mbit/s"; per = "s/GiB"
        spent0 = quotient("%.3f", dom0 / 1e9, bytes / (1024 * 1024 * 1024))
        spent1 = quotient("%.3f", guest / 1e9, bytes / (1024 * 1024 * 1024))
    } else {
        rate = quotient("%.0f", delivered, seconds); unit = "packets/s"; per = "us/packet"
        offered = quotient("%.0f", sent, seconds)
        # A duplicate, or one of the test's own few words, must not make less than nothing.
        if (known(sent) && known(delivered) && sent > 0) lost = sprintf("%.1f", sent > delivered ? 100 * (sent - delivered) / sent : 0)
        spent0 = quotient("%.2f", dom0 / 1e3, delivered)
        spent1 = quotient("%.2f", guest / 1e3, delivered)
    }
    # Of a "-" awk makes a nought, which would look like a figure.
    if (!known(dom0)) spent0 = "-"
    if (!known(guest)) spent1 = "-"
    if (!known(bytes) && test ~ /^tcp/) rate = "-"
    first = names[1]
    if (driver == first) reference[test] = rate
    ratio = better == "more" ? quotient("%.2f", rate, reference[test]) : quotient("%.2f", reference[test], rate)
    row[test, driver] = test OFS driver OFS rate OFS unit OFS offered OFS lost OFS spent0 OFS spent1 OFS per OFS ratio OFS why
}

END {
    for (t = 1; t <= count; t++)
        for (d = 1; d <= many; d++)
            if ((order[t], names[d]) in row) print row[order[t], names[d]]
}
