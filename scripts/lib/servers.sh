# Servers that a script needs beside it; they end with the script, also when it is killed (--end-with-parent). Sourced, not run.

servers=()
trap 'kill "${servers[@]}" 2>/dev/null || true' EXIT

# start_server READY LOG command...: returns when the server has written the file READY. One that ends before it is ready is
# best explained by its own words.
start_server() {
    local ready=$1 log=$2
    shift 2
    rm -f "$ready"
    "$@" --end-with-parent >"$log" 2>&1 &
    servers+=($!)
    until [ -s "$ready" ]; do
        kill -0 $! 2>/dev/null || { echo "a server ended before it was ready:" >&2; tail -20 "$log" >&2; exit 1; }
        sleep 0.5
    done
}
