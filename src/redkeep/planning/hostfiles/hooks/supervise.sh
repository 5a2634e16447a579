#!/usr/bin/env bash
# supervise N COMMAND...: keeps the server of node folder N running where there is no systemd (this machine, demos).
#
# Returns as soon as the supervisor stands on its own. That one runs the gate, then COMMAND in N/data, and both again
# when the server ends: after a second, after longer (5 s at most) while it does not stay up. TERM to the process in
# N/data/supervisor.pid runs `leave` (a primary hands over), ends the server (KILL after 20 s) and the supervisor. What happens is in N/data/supervisor.log.
#
# Needs bash, coreutils, and util-linux (flock, setsid).
set -u
umask 077

NODE=$(cd "${1:?usage: supervise NODE_FOLDER COMMAND...}" && pwd) || exit 1
GATE=$(cd "${BASH_SOURCE[0]%/*}" && pwd)/gate
LEAVE=${GATE%/*}/leave
CRASHED=${GATE%/*}/crashed
shift
mkdir -p "$NODE/data" && cd "$NODE/data" || exit 1

# note FILE PROCESS: whoever reads the file finds a whole number, the one before or this one.
note() { echo "$2" >"$1.new" && mv -f "$1.new" "$1"; }

# The lock is the supervisor's, held by an open file: it ends with the process, and pid files may be as stale as they like.
if [ "${SUPERVISOR_STARTS-}" != "$NODE" ]; then
    exec 9>>supervisor.lock
    if ! flock -n 9; then
        echo "supervise: $NODE already has a supervisor, process $(cat supervisor.pid 2>/dev/null)" >&2
        exit 1
    fi
    SUPERVISOR_STARTS=$NODE setsid "$BASH" "${BASH_SOURCE[0]}" "$NODE" "$@" </dev/null >>supervisor.log 2>&1 &
    note supervisor.pid $! # in the background, setsid keeps the process that it is
    exit 0
fi
unset SUPERVISOR_STARTS

say() { printf '%(%F %T)T supervise: %s\n' -1 "$*" >&2; }

CHILD=0
# run COMMAND...: in a process that we can end while we wait for it, and without our lock.
run() {
    "$@" 9>&- &
    CHILD=$!
    [ "$1" = "$GATE" ] || note server.pid "$CHILD" 9>&-
    wait "$CHILD"
}

nap() {
    sleep "$1" 9>&- &
    wait $!
}

stop() {
    trap '' TERM INT HUP
    local tenths=0
    if [ "$CHILD" != 0 ] && [ -x "$LEAVE" ] && [ -e server.pid ]; then "$LEAVE" "$NODE" 9>&-; fi
    if [ "$CHILD" != 0 ]; then kill -TERM "$CHILD" 2>/dev/null; fi
    while [ "$CHILD" != 0 ] && kill -0 "$CHILD" 2>/dev/null; do
        if [ $((++tenths)) = 200 ]; then
            say "not gone after 20 s, killed"
            kill -KILL "$CHILD" 2>/dev/null
        fi
        sleep 0.1
    done
    say "stopped"
    rm -f supervisor.pid server.pid
    exit 0
}
trap stop TERM INT HUP

# A server that lost its supervisor goes on: watch it until it ends. It is known by its folder, since numbers are reused.
if [ -e server.pid ] && CHILD=$(<server.pid) && [ -n "$CHILD" ] && [ "/proc/$CHILD/cwd" -ef . ]; then
    say "the server already runs as process $CHILD"
    while kill -0 "$CHILD" 2>/dev/null; do nap 0.2; done
fi

delay=1
while :; do
    CHILD=0
    if run "$GATE" "$NODE"; then
        started=$SECONDS
        "$GATE" --after "$NODE" 9>&- &
        run "$@"
        status=$?
        say "the server ended with status $status"
        if [ $status != 0 ] && [ -x "$CRASHED" ]; then "$CRASHED" "$NODE" 9>&-; fi
        if [ $((SECONDS - started)) -ge 10 ]; then delay=1; fi
    else
        say "the gate ended with status $?"
    fi
    CHILD=0
    nap $delay
    [ $delay = 5 ] || delay=$((delay + 1))
done
