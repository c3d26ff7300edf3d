# Running parts with a budget each. Sourced by ci/test and ci/full.
# shellcheck shell=bash

passed=0
failed=0
skipped=0
summary=()
reasons=()
known=()
wanted=("$@")
logs=${CI_LOGS:-target/ci-logs}
mkdir -p "$logs"

# part NAME MINUTES COMMAND...: runs the command, with its output in a log. A part that needs more than its
# minutes has failed. The log's end is shown when it fails. With CI_NO_SKIPS=1 a part has failed, too, in which
# something was skipped for lack of what ci/lib/install.sh installs.
part() {
  local name=$1 minutes=$2 log=$logs/$1.log start=$SECONDS verdict=ok code=0 skips
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
  timeout --kill-after=10 "$((minutes * 60))" "$@" </dev/null >"$log" 2>&1 || code=$?
  skips=$(grep -oE 'SKIPPED: .*' "$log" | sort)
  case $code in
  0)
    if [ "${CI_NO_SKIPS:-}" = 1 ] && [[ $skips == *'SKIPPED: not installed: '* ]]; then
      verdict='FAILED: not installed: what ci/lib/install.sh installs'
    fi
    ;;
  124) verdict="FAILED: over its budget of $minutes min" ;;
  *) verdict=FAILED ;;
  esac
  if [ "$verdict" = ok ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    tail -n 60 "$log"
    printf -- '-- all of it: %s\n' "$log"
  fi
  # What the part itself counted, so that an empty run shows.
  grep -hE '^test result: .* [1-9][0-9]* passed|^[0-9]+ passed, [0-9]+ failed' "$log" | sort | uniq -c | sed 's/^ *1 //; s/^/   /'
  if [ -n "$skips" ]; then
    skipped=$((skipped + $(wc -l <<<"$skips")))
    # Without the word, which a run around this one would count again.
    reasons+=("$(uniq -c <<<"$skips" | sed "s/^ */$name: /; s/SKIPPED:/x/")")
    printf '   %s\n' "${skips//$'\n'/$'\n   '}"
  fi
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
  if [ "$skipped" -gt 0 ]; then
    printf '\nskipped:\n'
    printf '%s\n' "${reasons[@]}"
  fi
  printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
  [ "$failed" = 0 ]
}
