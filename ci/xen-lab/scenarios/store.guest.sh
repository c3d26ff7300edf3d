# shellcheck shell=sh
# store, the guest's side: the same tests, where the store is reached through the guest's kernel and few rights are had.

store_tests() { RUST_BACKTRACE=1 /lab/programs/conformance --test-threads 1 --ignored on_xen::store; }
