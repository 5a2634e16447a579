#!/usr/bin/env bash
# crashed N: the server of node folder N ended by itself (a crash, kill -9, the kernel short of memory) while its host
# lives. Nobody needs to wait until its silence is noticed: the replica that is furthest is asked at once for the
# engine's own failover, which the majority of primaries votes on (CLUSTER FAILOVER FORCE; never TAKEOVER). The restart
# goes on behind its gate in any case, so a vote that cannot be had costs nothing.
#
# With Sentinels there is no vote on it: SENTINEL FAILOVER is one Sentinel's decision. It is asked only where the
# deployment file says so (crash_failover: true), and only of a Sentinel that has a quorum now (SENTINEL CKQUORUM).
#
# It leaves a primary alone that was promoted by force less than ten minutes ago: a command that crashes servers must not
# crash one after the other. BASE/drill-until (seconds since 1970) lifts that for drills.
#
# Needs bash >= 4.4 and coreutils. Settings are in N/conf/gate.env.
set -u
export LC_ALL=C # lengths in bytes; messages in English

#include talk.sh

say() { echo "crashed: $*" >&2; }
rest() {
    say "left to the restart: $*"
    exit 0
}

# Writes stand still until this is done, and starting a process costs most on a host that is busy: so what the shell can
# do itself it does, answers are waited for together, and the log is read meanwhile. Nothing is waited for without end.

# value NAME TEXT: a value of INFO, as VALUE.
value() {
    VALUE=${2#*$'\n'"$1":}
    if [ "$VALUE" = "$2" ]; then VALUE=; else VALUE=${VALUE%%$'\n'*}; fi
}

number() { [[ ${1-} =~ ^[0-9]+$ ]] && NUMBER=$1 || NUMBER=0; }

# hear_all COMMAND...: asks all of TARGETS at once; ANSWERS in the same order.
hear_all() {
    local target fd i fds=() pids=() text
    ANSWERS=()
    if [ ${#TARGETS[@]} = 1 ] && [ -z "$TLS_CA" ]; then
        # nobody else could take over: it may hang until the end comes (below)
        REPLY=
        converse "${TARGETS[0]%,*}" "${TARGETS[0]##*,}" "$@" 2>/dev/null
        ANSWERS=("$REPLY")
        return
    fi
    for target in "${TARGETS[@]}"; do
        if [ -n "$TLS_CA" ]; then
            exec {fd}< <(ask "$target" "$@")
        else
            exec {fd}< <(
                converse "${target%,*}" "${target##*,}" "$@" 2>/dev/null
                printf '%s' "$REPLY"
            )
        fi
        fds+=("$fd") pids+=("$!")
    done
    for i in "${!fds[@]}"; do
        text= fd=${fds[i]}
        IFS= read -r -d '' -t $((ASK_SECONDS + 1)) -u "$fd" text
        [ $? -le 128 ] || kill "${pids[i]}" 2>/dev/null # in vain: it still waits
        exec {fd}<&-
        ANSWERS+=("$text")
    done
}

# tell HOST,PORT COMMAND...: to somebody who answered just now.
tell() {
    local target=$1
    shift
    if [ -n "$TLS_CA" ]; then
        ask "$target" "$@" >/dev/null
    else
        converse "${target%,*}" "${target##*,}" "$@" 2>/dev/null
    fi
}

# look_up WORDS: starts to look in the server's log for a promotion.
look_up() { exec {LOG}< <(exec grep -aF -- "$1" data/server.log 2>/dev/null); }

# promoted_lately: the last one was less than ten minutes ago. What cannot be read counts as lately.
promoted_lately() {
    local line= when now
    IFS= read -r -d '' -t $((ASK_SECONDS + 1)) -u "$LOG" line
    [ $? -le 128 ] || return 0
    line=${line%$'\n'} line=${line##*$'\n'}
    [ -n "$line" ] || return 1
    printf -v now '%(%s)T' -1
    number ''
    [ ! -r "${NODE%/*}/drill-until" ] || number "$(<"${NODE%/*}/drill-until")"
    [ "$now" -ge "$NUMBER" ] || return 1
    # 1234:M 24 Nov 2026 21:02:19.123 * ...
    read -r _ day month year clock _ <<<"$line"
    when=$(date -d "$day $month $year ${clock%.*}" +%s 2>/dev/null) || return 0
    [ $((now - when)) -lt 600 ]
}

# best_replica: of TARGETS the one that is furthest, as BEST. One whose link was down before the crash is none: it lacks
# what was written since.
best_replica() {
    local i furthest=-1
    BEST=
    hear_all INFO replication
    for i in "${!TARGETS[@]}"; do
        value role "${ANSWERS[i]}"
        [ "$VALUE" = slave ] || continue
        value master_sync_in_progress "${ANSWERS[i]}"
        [ "$VALUE" = 0 ] || continue
        value master_link_status "${ANSWERS[i]}"
        if [ "$VALUE" != up ]; then
            value master_link_down_since_seconds "${ANSWERS[i]}"
            [[ $VALUE =~ ^[0-9]+$ ]] && [ "$VALUE" -le 3 ] || continue
        fi
        value slave_repl_offset "${ANSWERS[i]}"
        number "$VALUE"
        if [ "$NUMBER" -gt "$furthest" ]; then furthest=$NUMBER BEST=${TARGETS[i]}; fi
    done
}

# promoted TARGETS: waits until one of them is the primary.
promoted() {
    local i
    while [ "$SECONDS" -lt 3 ]; do
        hear_all INFO replication
        for i in "${!TARGETS[@]}"; do
            value role "${ANSWERS[i]}"
            if [ "$VALUE" = master ]; then
                say "${TARGETS[i]/,/:} is the primary now"
                return
            fi
        done
        sleep 0.05
    done
    say "no replica was promoted in time; the restart goes on"
}

crashed_cluster() {
    local -a line
    local id='' flags address
    [ -r data/nodes.conf ] || exit 0
    look_up "Forced failover user request accepted"
    while read -r -a line; do
        flags=,${line[2]-},
        [[ $flags == *,myself,* ]] || continue
        [[ $flags == *,master,* ]] && has_slots "${line[@]}" || exit 0
        id=${line[0]}
    done <data/nodes.conf
    [ -n "$id" ] || exit 0
    TARGETS=()
    while read -r -a line; do
        [ "${line[3]-}" = "$id" ] && [[ ${line[2]} != *fail* ]] || continue # nofailover, fail, fail?
        address=${line[1]%%@*}
        TARGETS+=("${address%:*},${address##*:}")
    done <data/nodes.conf
    [ ${#TARGETS[@]} -gt 0 ] || rest "it has no replica that may be promoted"
    best_replica
    ! promoted_lately || rest "this node was promoted by force less than ten minutes ago"
    [ -n "$BEST" ] || rest "no replica had a link until the crash"
    tell "$BEST" CLUSTER FAILOVER FORCE
    TARGETS=("$BEST")
    say "asked ${BEST/,/:} for the vote"
    promoted
}

# The last Sentinel is asked first: the one that makes the failover says where the primary was until all replicas follow
# the new one (SENTINEL MASTERS, which redis-py asks for), the others say it as soon as they hear of it, and clients ask
# the first.
crashed_sentinel() {
    local sentinel every=($SENTINELS) i
    look_up "MASTER MODE enabled"
    ENDING=$'*x\r\n' # a Sentinel knows no QUIT; at what is no request it hangs up
    ! promoted_lately || rest "this node was promoted less than ten minutes ago"
    for ((i = ${#every[@]} - 1; i >= 0; i--)); do
        sentinel=${every[i]}
        TARGETS=("$sentinel")
        hear_all SENTINEL CKQUORUM "$PRIMARY_NAME"
        [[ ${ANSWERS[0]} == *"OK "* && ${ANSWERS[0]} != *NOQUORUM* ]] || continue
        # the fourth and sixth line of what it says of the primary: its address and port
        hear_all SENTINEL MASTER "$PRIMARY_NAME"
        is_named_by "${ANSWERS[0]}" || exit 0
        say "asking the Sentinel ${sentinel/,/:} to fail over"
        tell "$sentinel" SENTINEL FAILOVER "$PRIMARY_NAME"
        TARGETS=($PEERS)
        promoted
        return
    done
    rest "no Sentinel has a quorum"
}

# is_named_by TEXT: we are the primary that a Sentinel speaks of.
is_named_by() {
    local line lines=() i host='' port='' protocol='^([$*][0-9]+$|[-+][A-Z]|AUTH failed)'
    while IFS= read -r line; do [[ $line =~ $protocol ]] || lines+=("$line"); done <<<"$1"
    for ((i = 0; i + 1 < ${#lines[@]}; i += 2)); do
        case ${lines[i]} in
            ip) host=${lines[i + 1]} ;;
            port) port=${lines[i + 1]} ;;
        esac
    done
    [ -n "$host" ] && is_self "$host" "$port"
}

# ---------------------------------------------------------------- here it begins

NODE=${1:?usage: crashed NODE_FOLDER}
HERE=$PWD
[[ ${NODE##*/} != sentinel-* ]] || exit 0
cd "$NODE" || exit 0
NODE=$PWD
[ ! -e "${NODE%/*}/taken-down" ] || exit 0
# systemd tells how the server ended; without it, the supervisor calls only after a crash.
if [ -n "${SERVICE_RESULT-}" ]; then
    case ${EXIT_CODE-} in
        killed | dumped) [ "${EXIT_STATUS-}" != TERM ] || exit 0 ;;
        exited) [ "${EXIT_STATUS-0}" != 0 ] || exit 0 ;;
        *) exit 0 ;;
    esac
    [ "$SERVICE_RESULT" != success ] || exit 0
fi
[ -r "$NODE/conf/gate.env" ] || [ -n "${GATE_SETTINGS_OPEN-}" ] || exit 0
[[ $SELF == /* ]] || SELF=$HERE/$SELF
open_settings
[ "$CRASH_FAILOVER" = yes ] || exit 0
trap "" PIPE # a server that hangs up is no answer, and nothing else
# Whatever hangs, the end comes; the restart goes on.
{
    sleep 6
    kill -KILL $$
} </dev/null >/dev/null 2>&1 &
WATCH=$!
trap 'kill $WATCH 2>/dev/null' EXIT
ASK_SECONDS=1
case $MODE in
    cluster) crashed_cluster ;;
    sentinel) crashed_sentinel ;;
esac
exit 0
