#!/usr/bin/env bash
# gate N: may the server of node folder N start as it stands? Runs before it, and ends with 0 when it may.
# gate --after N: with Sentinels, beside a primary that was just started; see there.
#
# A primary that crashed and comes back with an older copy (a snapshot, an append-only file that lost its end in a
# power cut, nothing at all) makes its replicas copy that, and erases writes that they had confirmed. So a former
# primary asks its peers first. Replicas, Sentinels and first starts pass at once.
#
# The gate never elects. In Cluster it asks the best replica for the engine's own voted failover (FAILOVER FORCE, which
# the majority votes on; never TAKEOVER). With Sentinel it waits for their election and follows it. In plain replication
# only the operator can promote: it holds, says so, and looks again.
#
# Needs bash >= 4.4, coreutils, grep and sed. Settings are in N/conf/gate.env; the gate's own state in N/data/gate.boot.
# `touch N/data/start-anyway` lets a held node start, once, whatever is lost by that.
set -u
export LC_ALL=C # lengths in bytes; messages in English

#include talk.sh

# ---------------------------------------------------------------- what our own disk holds

# aux NAME LENGTH: a field at the head of dump.rdb, whose first bytes are in RDB_HEAD as hexadecimal digits. The name
# is stored behind its length; the value is an integer of 1, 2 or 4 bytes (c0, c1, c2) or a string behind its length.
aux() {
    local name size i out=
    name=$(printf '%02x' ${#1})$(printf '%s' "$1" | od -An -v -tx1 | tr -d ' \n')
    local rest=${RDB_HEAD#*"$name"}
    [ "$rest" != "$RDB_HEAD" ] || return
    case ${rest:0:2} in
        c0) printf '%d' "0x${rest:2:2}" ;;
        c1) printf '%d' "0x${rest:4:2}${rest:2:2}" ;;
        c2) printf '%d' "0x${rest:8:2}${rest:6:2}${rest:4:2}${rest:2:2}" ;;
        *)
            size=$((16#${rest:0:2}))
            for ((i = 1; i <= size && size < 64; i++)); do out+=\\x${rest:2*i:2}; done
            printf '%b' "$out"
            ;;
    esac
}

# Sets EMPTY (the server will start without data), CERTAIN (not one write can be missing), NEWEST (when our newest data
# were written) and, from a snapshot, DISK_REPLID and DISK_OFFSET (where in the history of writes it stands).
read_disk() {
    local boot='' had='' log_size=0 file aof=()
    EMPTY=true CERTAIN=false NEWEST=0 DISK_REPLID='' DISK_OFFSET=0
    [ ! -e gate.boot ] || read -r boot had log_size <gate.boot
    if [[ $PERSISTENCE == *aof* ]]; then # then the server reads nothing else, not even a newer dump.rdb
        for file in appendonlydir/*.aof appendonlydir/*.manifest appendonly.aof; do [ ! -e "$file" ] || aof+=("$file"); done
        [ ${#aof[@]} -gt 0 ] || return
        EMPTY=false
        for file in "${aof[@]}"; do NEWEST=$(larger "$NEWEST" "$(stat -c %Y "$file")"); done
        # A write is in the page cache before its reply is sent, so a killed process loses none; a host that went down
        # may lose what was not synced. `had`: the file was in use at the last start, and is no leftover from earlier.
        if [[ $had == *aof* ]] && { [ "$boot" = "$BOOT" ] || [ "$APPENDFSYNC" = always ] || ended_well "$log_size"; }; then
            CERTAIN=true
        fi
    elif [ -s dump.rdb ]; then
        EMPTY=false
        RDB_HEAD=$(head -c 512 dump.rdb | od -An -v -tx1 | tr -d ' \n')
        NEWEST=$(aux ctime)
        DISK_REPLID=$(aux repl-id)
        DISK_OFFSET=$(aux repl-offset)
        : "${NEWEST:=0}" "${DISK_OFFSET:=0}"
    fi
}

larger() { [ "$1" -gt "$2" ] && echo "$1" || echo "$2"; }

# ended_well SIZE: the server's log has grown since it had SIZE bytes, and ends with the words of an orderly shutdown,
# which come after the append-only file was synced (all versions of Redis and Valkey).
ended_well() {
    [ -e server.log ] && [ "$(stat -c %s server.log)" -gt "$1" ] && [[ $(tail -n 1 server.log) == *"ready to exit, bye bye"* ]]
}

# ---------------------------------------------------------------- what a peer holds

has_keys() { [[ $1 == *$'\n'db[0-9]*:keys=[1-9]* ]]; }

# Replicas that were found ahead, or that answer but do not tell. One that then falls silent or is itself restarted is
# not forgotten: it is waited for, six times as long as for a peer of which we know nothing.
DOUBTED='' LAST_DOUBT=0
doubt() {
    LAST_DOUBT=$SECONDS
    doubted "$1" || DOUBTED+=" $1 "
}
doubted() { [[ $DOUBTED == *" $1 "* ]]; }
in_doubt() { [ -n "$DOUBTED" ] && [ $((SECONDS - LAST_DOUBT)) -lt $((6 * WAIT_PEERS)) ]; }

# is_ahead ADDRESS INFO: this replica holds, or may hold, writes that our disk lacks.
is_ahead() {
    local who=$1
    shift
    [ "$(field role "$1")" = slave ] || return 1
    if $EMPTY; then
        has_keys "$1" || [ "$(field loading "$1")" = 1 ]
        return
    fi
    ! $CERTAIN || return 1
    if [ "$(field loading "$1")" = 1 ]; then
        doubted "$who"
        return
    fi
    local down
    down=$(field master_link_down_since_seconds "$1")
    [ "$(field master_link_status "$1")" != up ] || down=0
    # Without a link since its own start it came up together with us, and its copy is no newer than a snapshot either:
    # -1, or since 1970 (Redis 6.0).
    if [ "${down:--1}" -lt 0 ] || [ "$down" -ge 1000000000 ]; then
        doubted "$who" || return 1
        down=0
    fi
    if [ -n "$DISK_REPLID" ] && [ "$(field master_replid "$1")" = "$DISK_REPLID" ]; then
        [ "$(field slave_repl_offset "$1")" -gt "$DISK_OFFSET" ] # the same history: the offset tells exactly
        return
    fi
    # Otherwise by time: a replica that lost its link before our newest data were written is behind us, and promoting
    # it would be the loss. A clock that stands before our newest data tells nothing.
    local now
    printf -v now '%(%s)T' -1
    [ "$now" -lt "$NEWEST" ] || [ "$NEWEST" -le $((now - down + 2)) ]
}

# silent ANSWER: it told us nothing, be it for want of an answer or of our rights. A refused connection is not silence:
# that process is down, and will have had no link since its start.
silent() { [[ $1 != *"Connection refused"* && $1 != *$'\n'role:* && $1 != *[\ ,]myself,* && $1 != *LOADING* ]]; }

# ---------------------------------------------------------------- deciding

say() { echo "gate: $*" >&2; }

# The server may start. Remembers under which boot, with which persistence and how long its log was.
go() {
    say "$*; starting"
    stop_voter
    remember
    exit 0
}

remember() {
    local size=0 state
    [ ! -e server.log ] || size=$(stat -c %s server.log)
    state="$BOOT $PERSISTENCE $size"
    [ -e gate.boot ] && [ "$(<gate.boot)" = "$state" ] && return
    echo "$state" >gate.boot
    # Synced, since a node that looks as if it never started passes.
    sync gate.boot 2>/dev/null
}

# follow HOST PORT WHY: starts as a replica of that one. node.conf is replaced whole or not at all.
follow() {
    local line
    {
        while IFS= read -r line || [ -n "$line" ]; do
            [[ ${line,,} =~ ^[[:space:]]*(replicaof|slaveof)[[:space:]] ]] || printf '%s\n' "$line"
        done <node.conf
        printf 'replicaof %s %s\n' "$1" "$2"
    } >node.conf.gate
    chmod --reference=node.conf node.conf.gate
    sync node.conf.gate 2>/dev/null
    mv -f node.conf.gate node.conf
    go "$1:$2 $3: following it"
}

nap() {
    sleep "$1" &
    wait $! # unlike a foreground command, this ends at once for a signal
}

LAST_LINE=-10
# hold SECONDS WHY...: waits, and says why, at most once in 10 s.
hold() {
    local seconds=$1
    shift
    if [ $((SECONDS - LAST_LINE)) -ge 10 ]; then
        LAST_LINE=$SECONDS
        say "waiting: $*"
    fi
    nap "$seconds"
    if [ -e start-anyway ]; then
        rm -f start-anyway
        go "the operator asked for it (start-anyway), although: $*"
    fi
}

in_time() { [ "$SECONDS" -lt "$WAIT_PEERS" ]; }

# look_at_peers: INFO of all of TARGETS. Sets AHEAD (the replica that is furthest ahead, or empty), AHEAD_OFFSET,
# NEW_PRIMARY (a peer that is a primary in use) and SILENT (who said nothing, and what instead).
look_at_peers() {
    local i info offset
    AHEAD='' AHEAD_OFFSET=-1 NEW_PRIMARY='' SILENT=''
    [ ${#TARGETS[@]} -gt 0 ] || return
    ask_all INFO
    for i in "${!TARGETS[@]}"; do
        info=${ANSWERS[i]}
        if silent "$info"; then
            SILENT+="${SILENT:+, }${TARGETS[i]/,/:} (${info%%$'\n'*})"
        elif [ "$(field role "$info")" = master ]; then
            # A node that was just added is a primary too, but an empty one that nobody follows.
            if has_keys "$info" || [ "$(field connected_slaves "$info")" != 0 ]; then NEW_PRIMARY=${TARGETS[i]}; fi
        elif is_ahead "${TARGETS[i]}" "$info"; then
            doubt "${TARGETS[i]}"
            offset=$(field slave_repl_offset "$info")
            if [ "${offset:-0}" -gt "$AHEAD_OFFSET" ]; then AHEAD=${TARGETS[i]} AHEAD_OFFSET=$offset; fi
        fi
    done
}

# ---------------------------------------------------------------- replication, plain or with Sentinels

is_replica() {
    local line
    while IFS= read -r line || [ -n "$line" ]; do
        line=${line,,}
        [[ $line =~ ^[[:space:]]*(replicaof|slaveof)[[:space:]] && ! $line =~ [[:space:]]no[[:space:]]+one ]] && return
    done <node.conf
    return 1
}

# look_at_sentinels: sets HEARD (how many know our primary), SAID_HOST and SAID_PORT (the primary by the highest
# configuration epoch), and FLAGS of all of them.
look_at_sentinels() {
    local answer line lines i epoch=-1 protocol='^([$*][0-9]+$|[-+][A-Z]|AUTH failed)'
    local -A entry
    HEARD=0 SAID_HOST='' SAID_PORT='' FLAGS=''
    TARGETS=($SENTINELS)
    [ ${#TARGETS[@]} -gt 0 ] || return
    ask_all SENTINEL MASTER "$PRIMARY_NAME"
    for answer in "${ANSWERS[@]}"; do
        lines=() entry=()
        while IFS= read -r line; do # names and values in turn, between the protocol's own lines
            [[ $line =~ $protocol ]] || lines+=("$line")
        done <<<"$answer"
        for ((i = 0; i + 1 < ${#lines[@]}; i += 2)); do entry[${lines[i]:-none}]=${lines[i + 1]}; done
        [[ -n ${entry[ip]-} && ${entry[port]-} =~ ^[0-9]+$ && ${entry[config-epoch]-} =~ ^[0-9]+$ ]] || continue
        ((HEARD++))
        FLAGS+=,${entry[flags]-}
        if [ "${entry[config-epoch]}" -gt "$epoch" ]; then
            epoch=${entry[config-epoch]} SAID_HOST=${entry[ip]} SAID_PORT=${entry[port]}
        fi
    done
}

gate_replication() {
    local sentinels=($SENTINELS) word
    while :; do
        look_at_sentinels
        word="$HEARD of ${#sentinels[@]} Sentinels answer"
        if [ ${#sentinels[@]} -gt 0 ] && [ $((HEARD * 2)) -le ${#sentinels[@]} ] && in_time; then
            hold 0.2 "$word, until $WAIT_PEERS s have passed"
            continue
        fi
        if [ "$HEARD" -gt 0 ] && ! is_self "$SAID_HOST" "$SAID_PORT"; then
            follow "$SAID_HOST" "$SAID_PORT" "is the primary for the Sentinels ($word)"
        fi
        TARGETS=($PEERS)
        look_at_peers
        if [ "$HEARD" = 0 ] && [ -n "$NEW_PRIMARY" ]; then
            follow "${NEW_PRIMARY%,*}" "${NEW_PRIMARY##*,}" "is the primary now"
        elif [[ $FLAGS == *failover_in_progress* ]]; then
            hold 0.1 "the Sentinels are electing a primary"
        elif [ -n "$AHEAD" ] && [ ${#sentinels[@]} -gt 0 ]; then
            hold 0.2 "the replica ${AHEAD/,/:} holds writes that are lost if this node starts as its primary; the Sentinels" \
                "will promote it ($word), $ANYWAY"
        elif [ -n "$AHEAD" ]; then
            hold 1 "the replica ${AHEAD/,/:} holds writes that are lost if this node starts as its primary; promote it" \
                "(REPLICAOF NO ONE and CONFIG REWRITE there), $ANYWAY"
        elif [[ -n $NEW_PRIMARY || $FLAGS == *_down* ]] && in_time; then
            # Sentinels that have begun go on even if we are back, and a primary that comes back during an election stays
            # writable for about 10 s afterwards.
            hold 0.1 "the Sentinels may be about to elect a primary, until $WAIT_PEERS s have passed"
        elif in_doubt; then
            hold 0.2 "no word from replicas that were ahead:${DOUBTED//,/:}"
        elif [ -n "$SILENT" ] && in_time; then
            hold 0.2 "no answer from $SILENT, until $WAIT_PEERS s have passed"
        else
            go "no replica is ahead of this primary${SILENT:+ (no answer from $SILENT)}"
        fi
    done
}

# An election that began in the instant of our start is not seen before it. Sentinels let a primary that came back in
# spite of one stay writable for some ten seconds (measured), and what it takes meanwhile is lost: so for a while it is
# made a replica as soon as they name another primary.
watch_elections() {
    while [ "$SECONDS" -lt $((WAIT_PEERS * 3)) ]; do
        look_at_sentinels
        if [ "$HEARD" -gt 0 ] && ! is_self "$SAID_HOST" "$SAID_PORT"; then
            say "$SAID_HOST:$SAID_PORT was elected during our start: following it"
            ask "127.0.0.1,$PORT" REPLICAOF "$SAID_HOST" "$SAID_PORT" >/dev/null
            ask "127.0.0.1,$PORT" CONFIG REWRITE >/dev/null
            return
        fi
        nap 0.1
    done
}

# ---------------------------------------------------------------- Cluster

# read_own: sets ME, MY_EPOCH and MY_SLOT (one of ours), and KNOWN (our replicas), from the server's own nodes.conf. Fails
# when this node is no primary with slots.
read_own() {
    local line
    ME='' KNOWN=''
    while read -r -a line; do
        if [[ ${line[2]-} == *myself,master* ]] && has_slots "${line[@]}"; then
            ME=${line[0]} MY_EPOCH=${line[6]} MY_SLOT=${line[8]%-*}
        fi
    done <nodes.conf
    [ -n "$ME" ] || return 1
    while read -r -a line; do [ "${line[3]-}" != "$ME" ] || KNOWN+=" ${line[0]}"; done <nodes.conf
}

# read_view ADDRESS TEXT: one peer's CLUSTER NODES. Adds it to SEEN, VOTERS and REPLICAS, as it shows itself.
read_view() {
    local -a line
    local flags owner_epoch=-1 my_slots=0 size=0 slot myself=''
    while read -r -a line; do
        [ ${#line[@]} -ge 8 ] && [ ${#line[0]} -eq 40 ] || continue
        flags=,${line[2]},
        if [[ $flags == *,master,* ]] && has_slots "${line[@]}"; then
            ((size++))
            [ "${line[0]}" != "$ME" ] || my_slots=1
            for slot in "${line[@]:8}"; do
                [[ $slot == \[* ]] && continue
                [ "${slot%-*}" -le "$MY_SLOT" ] && [ "$MY_SLOT" -le "${slot#*-}" ] && owner_epoch=${line[6]}
            done
        fi
        [[ $flags != *,myself,* ]] || myself=${line[*]}
    done <<<"$2"
    [ -n "$myself" ] || return
    read -r -a line <<<"$myself"
    SEEN+=" ${line[0]}"
    ((size <= SIZE)) || SIZE=$size
    if [[ ${line[2]} == *master* ]]; then
        ! has_slots "${line[@]}" || ((VOTERS++))
    elif [ "${line[3]}" = "$ME" ]; then
        if [[ ${line[2]} == *nofailover* ]]; then BARRED+=("$1"); else REPLICAS+=("$1"); fi
    fi
    # Slots are lost to a higher epoch only, so a view in which we lost ours to a lower one is older than our own.
    if [ $my_slots = 0 ] && [ "$owner_epoch" -gt "$MY_EPOCH" ]; then SUCCEEDED=true; fi
}

# look_at_cluster: sets SUCCEEDED (another primary has our slots), SEEN, SIZE (primaries with slots), VOTERS (those of them
# that answer), REPLICAS (ours) and BARRED (ours that must not be promoted), and whether somebody that matters is MISSING.
look_at_cluster() {
    local i id quiet=false
    SUCCEEDED=false MISSING=false SEEN='' SIZE=0 VOTERS=0 REPLICAS=() BARRED=()
    TARGETS=($PEERS)
    ask_all CLUSTER NODES
    for i in "${!TARGETS[@]}"; do
        ! silent "${ANSWERS[i]}" || quiet=true
        read_view "${TARGETS[i]}" "${ANSWERS[i]}"
    done
    for id in $KNOWN; do [[ " $SEEN " == *" $id "* ]] || MISSING=$quiet; done
    [ -n "$SEEN" ] || MISSING=true
}

# The voter: our own server, with our own node ID, but without data and open to nobody. When so many primaries went down
# at once that the rest is no majority, each of their gates would wait for the votes of the others for ever. A voter
# votes, and no replica can copy its emptiness, since it lets nobody in but the gates.
VOTER=0
start_voter() {
    [ "$VOTER" != 0 ] && kill -0 "$VOTER" 2>/dev/null && return
    local hash=nopass
    [ -z "$GATE_PASSWORD" ] || { hash=$(printf '%s' "$GATE_PASSWORD" | sha256sum) && hash="#${hash%% *}"; }
    {
        [ -z "$GATE_USER" ] || echo "user default off"
        echo "user ${GATE_USER:-default} on $hash resetkeys -@all +ping +info +cluster|nodes"
    } >voter.acl
    cat >voter.conf <<CONF
include "${PWD%/data}/conf/managed.conf"
dir "$PWD"
logfile "$PWD/voter.log"
aclfile "$PWD/voter.acl"
dbfilename voter.rdb
save ""
appendonly no
daemonize no
supervised no
CONF
    env -u NOTIFY_SOCKET "$SERVER" "$PWD/voter.conf" </dev/null >>voter.log 2>&1 &
    VOTER=$!
    echo "$VOTER" >voter.pid
    UNSETTLED=8
}

stop_voter() {
    [ "$VOTER" != 0 ] || return
    kill -KILL "$VOTER" 2>/dev/null
    wait "$VOTER" 2>/dev/null # its lock on nodes.conf ends with it
    VOTER=0
    rm -f voter.pid voter.acl voter.conf voter.rdb
}

# A gate that was killed may have left its voter behind; it would hold our port.
stop_old_voter() {
    [ -e voter.pid ] || return
    local pid
    pid=$(<voter.pid)
    if [ "/proc/$pid/cwd" -ef . ]; then
        kill -KILL "$pid" 2>/dev/null
        while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
    fi
    rm -f voter.pid voter.acl voter.conf voter.rdb
}

LAST_FORCE=-10
UNSETTLED=0
ask_for_the_vote() {
    local needed=$((SIZE / 2 + 1)) votes=$VOTERS pause=0.05 ms
    local why="the replica ${AHEAD/,/:} holds writes that this node lacks; its election needs $needed of $SIZE primaries"
    if [ "$votes" -lt $needed ]; then
        start_voter
        ((votes++))
    fi
    if [ "$votes" -lt $needed ]; then
        UNSETTLED=8 pause=0.5
    elif [ $UNSETTLED != 0 ]; then
        # A replica that asks too early gets too few votes and asks again only after four node timeouts, so voters that
        # have just come get the time to link up.
        ((UNSETTLED--))
        pause=0.2
    elif [ $((SECONDS - LAST_FORCE)) -ge 5 ]; then # the engine gives it up after that (CLUSTER_MF_TIMEOUT)
        # Shards that elect at the same moment compete for the votes of one epoch: each has its own moment.
        if [ $((VOTERS + 1)) -lt "$SIZE" ] || [ "$VOTER" != 0 ]; then
            ms=$((MY_SLOT * 1500 / 16384))
            nap "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
        fi
        LAST_FORCE=$SECONDS
        ask "$AHEAD" CLUSTER FAILOVER FORCE >/dev/null
    fi
    hold $pause "$why, $votes answer, $ANYWAY"
}

# end_moves: takes the marks of slots in the middle of a move out of our nodes.conf. A former primary that goes on with one
# does so under a new config epoch (SETSLOT NODE; Valkey even by itself, as soon as the giver has let go), and that is
# higher than the one of the replica that was promoted: it would take the shard back, with what its disk holds.
MARKS=' \[[0-9]+-[<>]-[0-9a-f]+\]'
moving() { grep -Eq "$MARKS" nodes.conf; }
end_moves() {
    moving || return 0
    cp -p nodes.conf nodes.conf.new && sed -E "s/$MARKS//g" nodes.conf >nodes.conf.new && sync nodes.conf.new &&
        mv -f nodes.conf.new nodes.conf && say "the moves of hash slots that it took part in are others' now"
}

gate_cluster() {
    read_own || go "not a primary with slots"
    [ -n "$KNOWN" ] || go "this primary has no replica"
    if $CERTAIN; then
        if moving; then
            look_at_cluster
            ! $SUCCEEDED || end_moves
        fi
        go "the append-only file holds every write"
    fi
    while :; do
        look_at_cluster
        if $SUCCEEDED; then
            stop_voter
            end_moves
            go "another primary has these slots now"
        fi
        TARGETS=("${REPLICAS[@]}")
        look_at_peers
        if [ -n "$AHEAD" ]; then
            ask_for_the_vote
            continue
        fi
        # It answered a moment ago: it was promoted in between, or the machine is overloaded.
        [ -z "$NEW_PRIMARY" ] || { nap 0.05 && continue; }
        [ -z "$SILENT" ] || doubt "$SILENT"
        TARGETS=("${BARRED[@]}")
        look_at_peers
        if [ -n "$AHEAD" ]; then
            hold 1 "the replica ${AHEAD/,/:} holds writes that this node lacks, and its cluster-replica-no-failover forbids to" \
                "promote it; set that to no, $ANYWAY"
        elif in_doubt; then
            hold 0.2 "no word from replicas that may be ahead:${DOUBTED//,/:}"
        elif $MISSING && in_time; then
            hold 0.2 "peers do not answer, until $WAIT_PEERS s have passed"
        else
            go "no replica is ahead of this primary"
        fi
    done
}

# ---------------------------------------------------------------- here it begins

AFTER=
[ "${1-}" != --after ] || { AFTER=--after && shift; }
NODE=${1:?usage: gate [--after] NODE_FOLDER}
[[ ${NODE##*/} != sentinel-* ]] || exit 0
NODE=$(cd "$NODE" && pwd) || exit 1

open_settings $AFTER

cd "$NODE/data" || exit 1
umask 077
trap 'stop_voter' EXIT
trap 'say "asked to stop"; exit 143' TERM INT HUP
BOOT=$(</proc/sys/kernel/random/boot_id)

if [ -n "$AFTER" ]; then
    [ "$MODE" != sentinel ] || is_replica || watch_elections
    exit 0
fi

ANYWAY="or, to give up those writes: touch $PWD/start-anyway"
stop_old_voter

if [ "$MODE" = cluster ]; then
    [ -s nodes.conf ] || go "the first start"
else
    [ -e gate.boot ] || [ -e dump.rdb ] || [ -e appendonlydir ] || [ -e appendonly.aof ] || go "the first start"
    ! is_replica || go "a replica"
fi
[ -n "$PEERS" ] || go "no peers"
read_disk
if [ "$MODE" = cluster ]; then gate_cluster; else gate_replication; fi
