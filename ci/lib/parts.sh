# Running parts with a budget each. Sourced by ci/test and ci/full.
# shellcheck shell=bash

passed=0
failed=0
summary=()
known=()
wanted=("$@")
logs=${CI_LOGS:-target/ci-logs}
mkdir -p "$logs"

# part NAME MINUTES COMMAND...: runs the command, with its output in a log. A part that needs more than its
# minutes has failed. The log's end is shown when it fails.
part() {
  local name=$1 minutes=$2 log=$logs/$1.log start=$SECONDS verdict
  shift 2
  known+=("$name")
  if [ "${wanted[0]:-}" = --list ]; then
    printf '%-12s %3s min  %s\n' "$name" "$minutes" "$*"
    return
  fi
  if [ ${#wanted[@]} -gt 0 ] && [[ " ${wanted[*]} " != *" $name "* ]]; then
    return
  fi
  printf '== %s (at most %s min)\n' "$name" "$minutes"
  if timeout --kill-after=10 "$((minutes * 60))" "$@" </dev/null >"$log" 2>&1; then
    verdict=ok
    passed=$((passed + 1))
  else
    local code=$?
    verdict="FAILED"
    [ "$code" = 124 ] && verdict="FAILED: over its budget of $minutes min"
    failed=$((failed + 1))
    tail -n 60 "$log"
    printf -- '-- all of it: %s\n' "$log"
  fi
  # What the part itself counted, so that an empty run shows.
  grep -hE '^test result: .* [1-9][0-9]* passed|^[0-9]+ passed, [0-9]+ failed|SKIPPED' "$log" | sort | uniq -c | sed 's/^ *1 //; s/^/   /'
  printf '   %s in %d s\n' "$verdict" "$((SECONDS - start))"
  summary+=("$(printf '%-12s %5d s  %s' "$name" "$((SECONDS - start))" "$verdict")")
}

# Prints the table and the closing counts; the exit code says whether all passed.
finish() {
  [ "${wanted[0]:-}" = --list ] && exit 0
  local name
  for name in "${wanted[@]}"; do
    if [[ " ${known[*]} " != *" $name "* ]]; then
      printf 'there is no part %s: %s\n' "$name" "${known[*]}" >&2
      failed=$((failed + 1))
    fi
  done
  printf '\n'
  printf '%s\n' "${summary[@]}"
  printf '\n%d passed, %d failed\n' "$passed" "$failed"
  [ "$failed" = 0 ]
}
