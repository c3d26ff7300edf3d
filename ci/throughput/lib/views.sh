# shellcheck shell=bash
# Three views of the rows that rows.awk makes: a table for people, JSON and CSV for programs.

HEADING="instructions, not time: virtual time of an emulated machine; compare rows, not machines"
# Raised when a field of the JSON or of the CSV changes its name or its meaning.
SCHEMA=1

# as_table ROWS
as_table() {
    printf '%s\n\n' "$HEADING"
    awk -F '\t' '
        function na(value) { return value == "-" || value == "" ? "n/a" : value }
        function none(value) { return value == "-" ? "" : value }
        BEGIN {
            form = "%-17s %-12s %8s %-10s %10s %7s %9s %9s %-10s %6s\n"
            printf form, "test", "driver", "rate", "", "offered/s", "lost %", "dom0 CPU", "guest CPU", "", "ratio"
            rule = "--------------------"
            printf form, substr(rule, 1, 17), substr(rule, 1, 12), substr(rule, 1, 8), substr(rule, 1, 10), substr(rule, 1, 10),
                substr(rule, 1, 7), substr(rule, 1, 9), substr(rule, 1, 9), substr(rule, 1, 10), substr(rule, 1, 6)
        }
        {
            bare = $1 == "ping"
            printf form, $1, $2, na($3), $4, none($5), none($6), bare ? "" : na($7), bare ? "" : na($8), none($9), na($10)
            if ($11 != "") printf "    n/a: %s\n", $11
        }' "$1"
}

# as_csv ROWS
as_csv() {
    echo "schema,test,driver,rate,unit,offered_per_second,lost_percent,cpu_dom0,cpu_guest,cpu_unit,ratio,error"
    awk -F '\t' -v schema="$SCHEMA" '
        {
            line = schema
            for (field = 1; field <= 10; field++) line = line "," ($field == "-" ? "" : $field)
            gsub(/"/, "\"\"", $11)
            print line "," ($11 == "" ? "" : "\"" $11 "\"")
        }' "$1"
}

# as_json ROWS, with the versions and settings of this run around them.
as_json() {
    printf '{\n  "schema": %d,\n  "heading": "%s",\n' "$SCHEMA" "$HEADING"
    printf '  "versions": { "xen": "%s", "linux": "%s", "qemu": "%s", "netfront": "%s" },\n' \
        "$(version xen)" "$(version linux)" "$(version qemu)" "$REVISION"
    printf '  "settings": { "guest": "%s", "seconds": %d, "ns_per_instruction": 1, "processors": 1 },\n' "$GUEST" "$SECONDS_EACH"
    printf '  "rows": [\n'
    awk -F '\t' '
        function value(text) { return text == "-" || text == "" ? "null" : text }
        function string(text) {
            gsub(/[\\"]/, "\\\\&", text)
            gsub(/[[:cntrl:]]/, " ", text)
            return text == "-" || text == "" ? "null" : "\"" text "\""
        }
        {
            printf "%s    { \"test\": %s, \"driver\": %s, \"rate\": %s, \"unit\": %s, \"offered_per_second\": %s, \"lost_percent\": %s, ",
                (NR > 1 ? ",\n" : ""), string($1), string($2), value($3), string($4), value($5), value($6)
            printf "\"cpu_dom0\": %s, \"cpu_guest\": %s, \"cpu_unit\": %s, \"ratio\": %s, \"error\": %s }",
                value($7), value($8), string($9), value($10), string($11)
        }
        END { print "" }' "$1"
    printf '  ]\n}\n'
}
