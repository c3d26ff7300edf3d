# shellcheck shell=bash
# What the lab says to a person: a line a stage, with the seconds since the start, and errors that say what to do.

LAB_STARTED=$(date +%s)

say() { printf '%4ds  %s\n' $(($(date +%s) - LAB_STARTED)) "$*"; }

# die WHAT [WHAT-TO-DO]: an error of the lab itself, not of a scenario.
die() {
    printf 'xen-lab: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf 'xen-lab: %s\n' "$2" >&2
    exit 2
}

# last_lines FILE...: the end of each log that exists, named, for a person who asks why.
last_lines() {
    local file
    for file in "$@"; do
        [ -s "$file" ] || continue
        printf -- '--- last lines of %s\n' "$file"
        # The console carries carriage returns and escapes of two kernels; a terminal must survive them.
        tail -n 25 "$file" | tr -d '\r' | LC_ALL=C tr -c '[:print:]\n\t' '?'
    done
}
