# shellcheck shell=sh
# library, the guest's side: netfront/examples/echo.rs.

# echo_start [OPTION...]
echo_start() {
    # shellcheck disable=SC2217 # not the shell's echo
    /lab/programs/echo --address 10.77.0.2 "$@" >/run/lab/echo.log 2>&1 </dev/null &
    echo $! >/run/lab/echo.pid
    tries=100
    until grep -q answering /run/lab/echo.log; do
        echo_alive || return 1
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "the example does not start:"; cat /run/lab/echo.log; return 1; }
        sleep 0.1
    done
}

echo_alive() { kill -0 "$(cat /run/lab/echo.pid)" 2>/dev/null || { echo "the example ended:"; cat /run/lab/echo.log; return 1; }; }

echo_log() { cat /run/lab/echo.log; }

echo_stop() {
    kill -TERM "$(cat /run/lab/echo.pid)"
    tries=50
    while kill -0 "$(cat /run/lab/echo.pid)" 2>/dev/null; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "the example does not end"; return 1; }
        sleep 0.1
    done
}
