# livelock.tsv, settings.tsv or policies.tsv of the scenario `livelock` to a table (-v title), or with -v form=json to an array of
# JSON. The rows of one column (a rate that was asked for, a setting, or who works) stand together, since they are what is to be
# compared. `ratio` is to the first receiver of the column, or with -v reference=NUMBER to that many datagrams a second. With
# -v form=rate it prints what one receiver (-v receiver) of one column (-v of_column) delivers a second.
# What is unknown is "-". With -v form=judge it prints nothing and fails if there is no row, or one without the figures that it is there for.

BEGIN { FS = OFS = "\t" }

function known(value) { return value ~ /^[0-9][0-9.]*(e[+-]?[0-9]+)?$/ }
# quotient FORM OF BY: "-" when one of them is unknown, or the divisor is nothing.
function quotient(form_of, of, by) { return known(of) && known(by) && by > 0 ? sprintf(form_of, of / by) : "-" }
function json(value) { return known(value) ? value : "null" }
function string(text) {
    gsub(/[\\"]/, "\\\\&", text)
    gsub(/[[:cntrl:]]/, " ", text)
    return text == "" ? "null" : "\"" text "\""
}
function bar(value, most,    drawn) {
    drawn = ""
    if (known(value) && most > 0) while (length(drawn) < value * 40 / most) drawn = drawn "#"
    return drawn
}

# lack: why a row says less than it should, in words; "" if it says all.
function lack(    words) {
    if ($15 != "") return $15
    words = ""
    if (!known($4)) words = words ", datagrams sent"
    if (!known($5)) words = words ", datagrams delivered"
    if (!known($8)) words = words ", the CPU time of dom0"
    if (!known($9)) words = words ", the CPU time of the guest"
    return words == "" ? "" : "no figure of " substr(words, 3)
}

{
    $15 = lack()
    if ($15 != "") bad = 1
    if (!(($2) in columns)) { columns[$2] = 1; column[++many] = $2 }
    if (!(($1) in names)) { names[$1] = 1; name[++count] = $1 }
    # Of a flood that was over at once the receiver's clock knows nothing.
    if (!known($13) || $13 + 0 == 0) $13 = quotient("%.0f", $5, $3)
    if (known($13)) $13 = sprintf("%.0f", $13)
    if (known($13) && $13 + 0 > most) most = $13 + 0
    row[$2, $1] = $0
}

END {
    if (form == "judge") exit bad || NR == 0
    if (form == "rate") {
        found = "-"
        if ((of_column, receiver) in row) {
            split(row[of_column, receiver], of, "\t")
            found = of[13]
        }
        print known(found) ? found : "-"
        exit
    }
    if (form == "json") printf "["
    else {
        print title
        print ""
        line = "%-8s %-9s %10s %9s %9s %9s %7s %8s %11s %8s %9s %9s %6s\n"
        printf line, head, "receiver", "offered/s", "sent", "delivered", "lost", "lost %", "dropped", "delivered/s", "dom0 ns", "guest ns", "wake-ups", "ratio"
    }
    for (c = 1; c <= many; c++) {
        compared = reference == "" ? "-" : reference
        if (form != "json") print ""
        for (n = 1; n <= count; n++) {
            if (!((column[c], name[n]) in row)) continue
            split(row[column[c], name[n]], of, "\t")
            offered = quotient("%.0f", of[4], of[3])
            # The first of all, also where it is unknown: no other is what they are compared with.
            if (n == 1 && reference == "") compared = of[13]
            ratio = quotient("%.2f", of[13], compared)
            percent = known(of[6]) ? quotient("%.1f", of[6] * 100, of[4]) : "-"
            dom0 = quotient("%.0f", of[8], of[5])
            guest = quotient("%.0f", of[9], of[5])
            wakeups = quotient("%.4f", of[12], of[5])
            if (form == "json") {
                printf "%s\n    { \"receiver\": %s, \"column\": %s, \"offered_per_second\": %s, \"sent\": %s, \"delivered\": %s, ",
                    (rows++ ? "," : ""), string(name[n]), string(column[c]), json(offered), json(of[4]), json(of[5])
                printf "\"dropped_in_guest\": %s, ", json(of[14])
                printf "\"lost\": %s, \"out_of_order\": %s, \"delivered_per_second\": %s, \"dom0_instructions_a_packet\": %s, ",
                    json(of[6]), json(of[7]), json(of[13]), json(dom0)
                printf "\"guest_instructions_a_packet\": %s, \"rounds\": %s, \"time_squeezes\": %s, \"wakeups_a_packet\": %s, ",
                    json(guest), json(of[10]), json(of[11]), json(wakeups)
                printf "\"ratio\": %s, \"error\": %s }", json(ratio), string(of[15])
            } else {
                printf line, column[c], name[n], offered, of[4], of[5], of[6], percent, of[14], of[13], dom0, guest, wakeups, ratio
                if (of[15] != "") printf "    n/a: %s\n", of[15]
            }
        }
    }
    if (form == "json") {
        print "\n  ]"
        exit
    }
    print ""
    print "delivered a second:"
    for (c = 1; c <= many; c++)
        for (n = 1; n <= count; n++) {
            if (!((column[c], name[n]) in row)) continue
            split(row[column[c], name[n]], of, "\t")
            printf "%-8s %-9s %7s %s\n", column[c], name[n], of[13], bar(of[13], most)
        }
}
