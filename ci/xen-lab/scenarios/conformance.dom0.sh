# shellcheck shell=sh
# conformance: the hypervisor crate's conformance test on real Xen, in dom0, which grants to itself.

# One thread: the tests share one grant table, one store and gntalloc's limit.
# Off Xen those of the real ground are ignored; here they, and only they, are run.
RUST_BACKTRACE=1 timeout 120 /lab/programs/conformance --test-threads 1 --ignored on_xen >"$RESULTS/conformance.txt" 2>&1
status=$?
cat "$RESULTS/conformance.txt"
result=$(sed -n 's/^test result: //p' "$RESULTS/conformance.txt" | tail -n 1)
check "exit status of the conformance test (it says: ${result:-nothing})" 0 "$status"
passed=$(printf '%s\n' "$result" | sed -n 's/.* \([0-9]*\) passed.*/\1/p')
check_at_least "conformance tests passed" 50 "$passed"
saw "$passed conformance tests passed on Xen"
