# livelock.tsv of the scenario `livelock` to a table, or with -v form=json to JSON. What is unknown is "-".

BEGIN {
    FS = "\t"
    if (form == "json") {
        printf "{\n  \"schema\": 1,\n  \"heading\": \"%s\",\n  \"seconds\": %d,\n  \"rows\": [", heading, seconds
    } else {
        print heading
        print ""
        line = "%-9s %10s %10s %10s %7s %12s %9s %9s %9s %6s\n"
        printf line, "receiver", "sent", "delivered", "lost", "lost %", "delivered/s", "dom0 ns", "guest ns", "wake-ups", "ratio"
        rule = "------------"
        printf line, substr(rule, 1, 9), substr(rule, 1, 10), substr(rule, 1, 10), substr(rule, 1, 10), substr(rule, 1, 7),
            rule, substr(rule, 1, 9), substr(rule, 1, 9), substr(rule, 1, 9), substr(rule, 1, 6)
    }
}

function known(value) { return value ~ /^[0-9][0-9.]*(e[+-]?[0-9]+)?$/ }
# quotient FORM OF BY: "-" when one of them is unknown, or the divisor is nothing.
function quotient(form_of, of, by) { return known(of) && known(by) && by > 0 ? sprintf(form_of, of / by) : "-" }
function json(value) { return known(value) ? value : "null" }
function string(text) {
    gsub(/[\\"]/, "\\\\&", text)
    gsub(/[[:cntrl:]]/, " ", text)
    return text == "" ? "null" : "\"" text "\""
}

{
    receiver = $1; time = $2; sent = $3; delivered = $4; lost = $5; late = $6; dom0 = $7; guest = $8; rounds = $9; squeezes = $10; wakeups = $11; why = $12
    percent = known(lost) ? quotient("%.1f", lost * 100, sent) : "-"
    rate = quotient("%.0f", delivered, time)
    if (NR == 1) reference = rate
    ratio = quotient("%.2f", rate, reference)
    dom0_each = quotient("%.0f", dom0, delivered)
    guest_each = quotient("%.0f", guest, delivered)
    wakeups_each = quotient("%.4f", wakeups, delivered)
    if (form == "json") {
        printf "%s\n    { \"receiver\": \"%s\", \"sent\": %s, \"delivered\": %s, \"lost\": %s, \"out_of_order\": %s, ",
            (NR > 1 ? "," : ""), receiver, json(sent), json(delivered), json(lost), json(late)
        printf "\"delivered_per_second\": %s, \"dom0_instructions_a_packet\": %s, \"guest_instructions_a_packet\": %s, ",
            json(rate), json(dom0_each), json(guest_each)
        printf "\"rounds\": %s, \"time_squeezes\": %s, \"wakeups_a_packet\": %s, \"ratio\": %s, \"error\": %s }",
            json(rounds), json(squeezes), json(wakeups_each), json(ratio), string(why)
    } else {
        printf line, receiver, sent, delivered, lost, percent, rate, dom0_each, guest_each, wakeups_each, ratio
        if (why != "") printf "    n/a: %s\n", why
    }
}

END { if (form == "json") print "\n  ]\n}" }
