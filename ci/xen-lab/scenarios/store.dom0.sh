# shellcheck shell=sh
# store: the store's conformance tests against the real xenstored, with both clients: in dom0 and in the guest.

# passed_in NAME: of the last run; fails unless all of them passed.
passed_in() {
    cat "$RESULTS/$1.txt"
    check "exit status of the store's tests in $1 ($(grep '^test result' "$RESULTS/$1.txt" || echo no result))" 0 "$2"
    check_at_least "store tests passed in $1" 20 "$(sed -n 's/^test result: .* \([0-9]*\) passed.*/\1/p' "$RESULTS/$1.txt")"
    saw "$(sed -n 's/^test result: .* \([0-9]*\) passed.*/\1/p' "$RESULTS/$1.txt") store tests passed in $1"
}

guest_start
RUST_BACKTRACE=1 timeout 100 /lab/programs/conformance --test-threads 1 --ignored on_xen::store >"$RESULTS/dom0.txt" 2>&1
passed_in dom0 $?
GUEST_DEADLINE=100 guest store_tests >"$RESULTS/guest.txt"
passed_in guest $?
