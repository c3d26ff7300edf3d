# shellcheck shell=sh
# A witness in the guest that asks neither driver: the guest's kernel counts the calls of its own functions
# that grant a page and that take a grant back. Whatever grants pages, a driver in the kernel or a
# program through /dev/xen/gntalloc, ends in one of them.

TRACING=/sys/kernel/tracing

witness_start() {
    mount -t tracefs tracefs "$TRACING" 2>/dev/null
    for function in gnttab_grant_foreign_access gnttab_grant_foreign_access_ref; do
        echo "p:lab/grant_$function $function" >>"$TRACING/kprobe_events" || return 1
    done
    for function in gnttab_end_foreign_access gnttab_end_foreign_access_ref gnttab_try_end_foreign_access; do
        echo "p:lab/revoke_$function $function" >>"$TRACING/kprobe_events" || return 1
    done
    echo 1 >"$TRACING/events/lab/enable"
}

# hits PREFIX: all calls, those that the trace missed included.
hits() { awk -v prefix="$1" 'index($1, prefix) == 1 { sum += $2 + $3 } END { print sum + 0 }' "$TRACING/kprobe_profile"; }

witness_grants() { hits grant_; }
witness_revokes() { hits revoke_; }
