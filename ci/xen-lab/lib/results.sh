# shellcheck shell=bash
# What came out: files from the disk, one line a scenario, the closing line.

unpack_results() {
    # A machine that never wrote has a disk of zeroes, which tar takes for an empty archive.
    tar -xf "$WORK/results.disk" -C "$OUT" 2>"$WORK/tar.log" || {
        last_lines "$WORK/tar.log"
        say "results: the archive on the results disk is damaged"
    }
}

# summary: non-zero unless every scenario of the plan passed.
summary() {
    local scenario result verdict seconds seen passed=0 failed=0
    printf '\n'
    : >"$OUT/results.tsv"
    for scenario in "${SCENARIOS[@]}"; do
        result=$(tr -d '\r' <"$OUT/progress.log" | sed -n "s/^result $scenario //p" | tail -n 1)
        read -r verdict seconds seen <<<"${result:-failed - gave no result}"
        if [ "$verdict" = passed ]; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            last_lines "$OUT/$scenario/log.txt" "$OUT/$scenario/guest-console.txt"
        fi
        printf '%s\t%s\t%s\t%s\n' "$scenario" "$verdict" "$seconds" "$seen" >>"$OUT/results.tsv"
        printf '%-14s %s %5s s  %s\n' "$scenario" "$verdict" "$seconds" "$seen"
    done
    printf 'logs and captures: %s\n\n' "$OUT"
    printf '%d passed, %d failed\n' "$passed" "$failed"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}
