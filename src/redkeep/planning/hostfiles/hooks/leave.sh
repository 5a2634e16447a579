#!/usr/bin/env bash
# leave N: hands the role of node folder N's server over to a replica, before that server is stopped (systemctl stop, a
# reboot, an upgrade of the package). Writes are held until the replica has all of them, so none is lost.
#
# It ends within LEAVE_SECONDS and always with 0: nothing may block a shutdown. It does nothing for a replica, for a
# primary without a replica that can take over, in plain replication (there clients know the primary by its address), and
# where the whole deployment is taken down (BASE/taken-down). In a Cluster, Valkey 9 can do it by itself
# (shutdown-on-sigterm failover, which Redkeep sets too); it waits for its replicas' acknowledgements of every second.
#
# Needs bash >= 4.4 and coreutils. Settings are in N/conf/gate.env.
set -u
export LC_ALL=C # lengths in bytes; messages in English

#include talk.sh

say() { echo "leave: $*" >&2; }
nobody() {
    say "stopping without handing over: $*"
    exit 0
}

in_time() { [ "$SECONDS" -lt "$LEAVE_SECONDS" ]; }

# worked REPLY: it says OK, and no error beside the OK of our login.
worked() {
    local refused='(^|'$'\n'')-?(ERR|NOPERM|NOAUTH|WRONGPASS|NOQUORUM|INPROG|NOGOODSLAVE|LOADING|READONLY|UNKNOWN|AUTH failed)'
    [[ $1 == *OK* && ! $1 =~ $refused ]]
}

number() { [[ ${1-} =~ ^[0-9]+$ ]] && printf '%s' "$1" || printf 0; }

# am_primary: asks our own server.
am_primary() {
    MINE=$(ask "$ME" INFO replication)
    [ "$(field role "$MINE")" = master ]
}

# good_replicas: of TARGETS, those that are replicas of ours with a link, as GOOD (the furthest first) with ANSWERS asked.
good_replicas() {
    local i offset best=-1
    GOOD=()
    ask_all INFO replication
    for i in "${!TARGETS[@]}"; do
        [ "$(field role "${ANSWERS[i]}")" = slave ] || continue
        [ "$(field master_link_status "${ANSWERS[i]}")" = up ] || continue
        [ "$(field slave_priority "${ANSWERS[i]}")" != 0 ] || [ "$MODE" = cluster ] || continue
        [ "$MODE" = cluster ] || is_self "$(field master_host "${ANSWERS[i]}")" "$(field master_port "${ANSWERS[i]}")" || continue
        offset=$(number "$(field slave_repl_offset "${ANSWERS[i]}")")
        if [ "$offset" -gt "$best" ]; then
            best=$offset
            GOOD=("${TARGETS[i]}" "${GOOD[@]}")
        else
            GOOD+=("${TARGETS[i]}")
        fi
    done
}

# ---------------------------------------------------------------- Cluster

# read_nodes: from our own CLUSTER NODES: TARGETS (our replicas that are not marked as failing and may be promoted), and
# how many of all primaries with slots (SIZE) are well (VOTERS).
read_nodes() {
    local -a line
    local id='' flags address nodes
    SIZE=0 VOTERS=0 TARGETS=()
    nodes=$(ask "$ME" CLUSTER NODES)
    while read -r -a line; do [[ ,${line[2]-}, != *,myself,* ]] || id=${line[0]}; done <<<"$nodes"
    while read -r -a line; do
        [ ${#line[@]} -ge 8 ] || continue
        flags=,${line[2]},
        if [[ $flags == *,master,* ]] && has_slots "${line[@]}"; then
            ((SIZE++))
            [[ $flags == *,fail* || ($flags != *,myself,* && ${line[7]} != connected) ]] || ((VOTERS++))
        elif [ "${line[3]}" = "$id" ] && [[ $flags != *fail* && ${line[7]} = connected ]]; then
            address=${line[1]%%@*}
            TARGETS+=("${address%:*},${address##*:}")
        fi
    done <<<"$nodes"
}

leave_cluster() {
    read_nodes
    [ ${#TARGETS[@]} -gt 0 ] || nobody "no replica of it is well"
    [ $((VOTERS * 2)) -gt "$SIZE" ] || nobody "$VOTERS of $SIZE primaries are well, and their majority has to vote"
    good_replicas
    [ ${#GOOD[@]} -gt 0 ] || nobody "no replica of it has a link"
    say "handing over to ${GOOD[0]/,/:}"
    ask "${GOOD[0]}" CLUSTER FAILOVER >/dev/null
    while in_time; do
        am_primary || { say "handed over" && exit 0; }
        sleep 0.02
    done
    nobody "the vote did not come in time"
}

# ---------------------------------------------------------------- Sentinel

# find_sentinel: sets SENTINEL to one that has a quorum now. Those of our own host may be on their way out as well, so
# they come last. The others from the end, since clients ask the first, and the one that makes the failover is the last
# to say so. As long as any of them is at a failover, another one must not begin.
find_sentinel() {
    local candidate answer own='' others=''
    for candidate in $SENTINELS; do
        if [ "${candidate%,*}" = "$ADDRESS" ]; then own="$candidate $own"; else others="$candidate $others"; fi
    done
    SENTINEL=
    TARGETS=($SENTINELS)
    ask_all SENTINEL MASTER "$PRIMARY_NAME"
    while [[ ${ANSWERS[*]} == *failover_in_progress* ]]; do
        [ "$SECONDS" -lt $((LEAVE_SECONDS / 2)) ] || return
        sleep 0.1
        ask_all SENTINEL MASTER "$PRIMARY_NAME"
    done
    for candidate in $others $own; do
        worked "$(ask "$candidate" SENTINEL CKQUORUM "$PRIMARY_NAME")" || continue
        answer=$(ask "$candidate" SENTINEL MASTER "$PRIMARY_NAME")
        [[ $answer != *failover_in_progress* && $answer != *_down* ]] || continue
        SENTINEL=$candidate
        return
    done
}

# equal: every replica of GOOD has every byte of ours.
equal() {
    local i mine
    mine=$(number "$(field master_repl_offset "$(ask "$ME" INFO replication)")")
    TARGETS=("${GOOD[@]}")
    ask_all INFO replication
    for i in "${!TARGETS[@]}"; do
        [ "$(number "$(field slave_repl_offset "${ANSWERS[i]}")")" -ge "$mine" ] || return 1
    done
    [ "$mine" -gt 0 ]
}

let_go() { ask "$ME" CLIENT UNPAUSE >/dev/null; }

leave_sentinel() {
    local i tries=0 new=''
    TARGETS=($PEERS)
    good_replicas
    [ ${#GOOD[@]} -gt 0 ] || nobody "no replica of it has a link"
    find_sentinel
    [ -n "$SENTINEL" ] || nobody "no Sentinel has a quorum for it"
    say "writes are held until ${#GOOD[@]} replicas have them"
    # Should we be killed here, writes go on after a second and a half.
    worked "$(ask "$ME" CLIENT PAUSE 1500 WRITE)" || nobody "writes cannot be held"
    trap let_go EXIT
    until equal; do
        ((tries++ < 12)) && in_time || nobody "the replicas did not catch up in time"
        sleep 0.02
    done
    # From here on the Sentinels go on by themselves, and until they are through nothing may be written here.
    ask "$ME" CLIENT PAUSE 15000 WRITE >/dev/null
    worked "$(ask "$SENTINEL" SENTINEL FAILOVER "$PRIMARY_NAME")" || nobody "the Sentinels refuse"
    trap - EXIT
    TARGETS=("${GOOD[@]}")
    while [ -z "$new" ]; do
        in_time || nobody "the Sentinels have not promoted anybody yet; they go on, and no write is taken until then"
        ask_all INFO replication
        for i in "${!TARGETS[@]}"; do
            [ "$(field role "${ANSWERS[i]}")" != master ] || new=${TARGETS[i]}
        done
    done
    # Writers that wait are told READONLY now, and look for the new primary.
    ask "$ME" REPLICAOF "${new%,*}" "${new##*,}" >/dev/null
    ask "$ME" CLIENT UNPAUSE >/dev/null
    ask "$ME" CONFIG REWRITE >/dev/null
    say "handed over to ${new/,/:}"
    exit 0
}

# ---------------------------------------------------------------- here it begins

NODE=${1:?usage: leave NODE_FOLDER}
[[ ${NODE##*/} != sentinel-* ]] || exit 0
NODE=$(cd "$NODE" && pwd) || exit 0
# Set when all is taken down; one that was forgotten does not count for long.
[ -z "$(find "${NODE%/*}/taken-down" -mmin -10 2>/dev/null)" ] || exit 0
[ -r "$NODE/conf/gate.env" ] || [ -n "${GATE_SETTINGS_OPEN-}" ] || exit 0

: "${LEAVE_SECONDS:=8}"
# Whatever hangs, the end comes.
if [ -z "${LEAVE_WATCHED-}" ]; then
    LEAVE_WATCHED=yes LEAVE_SECONDS=$LEAVE_SECONDS timeout -k 1 "$((LEAVE_SECONDS + 2))" "$BASH" "$SELF" "$NODE"
    exit 0
fi
open_settings
[ "$MODE" != standalone ] || exit 0
[ -n "$PEERS" ] || exit 0
ASK_SECONDS=1
ME=127.0.0.1,$PORT
am_primary || exit 0
case $MODE in
    cluster) leave_cluster ;;
    sentinel) leave_sentinel ;;
esac
exit 0
