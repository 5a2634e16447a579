# ---------------------------------------------------------------- settings, and talking to servers
# Part of every hook. SELF is the hook's file, NODE the node's folder.

SELF=${BASH_SOURCE[0]}

# One request in the server's protocol, at the end of REQUESTS.
request() {
    local word text
    printf -v text '*%d\r\n' $#
    REQUESTS+=$text
    for word; do
        printf -v text '$%d\r\n%s\r\n' ${#word} "$word"
        REQUESTS+=$text
    done
}

# converse HOST PORT COMMAND...: the raw reply as REPLY, by nothing but this shell; no process is started. It may wait for a
# connection for as long as the kernel does, so somebody else has to give up. ENDING is sent after QUIT.
converse() {
    local fd REQUESTS=
    REPLY=
    exec {fd}<>"/dev/tcp/$1/$2" || return 1
    shift 2
    [ -z "$GATE_PASSWORD" ] || request AUTH ${GATE_USER:+"$GATE_USER"} "$GATE_PASSWORD"
    request "$@"
    request QUIT
    printf '%s' "$REQUESTS${ENDING-}" >&"$fd"
    IFS= read -r -d '' -t "${ASK_SECONDS-60}" -u "$fd" REPLY
    exec {fd}<&-
    REPLY=${REPLY//$'\r'/}
}

# gate --ask HOST PORT COMMAND...: the raw reply, for engines without a command-line client. A process of its own, since
# bash can connect but not give up: `timeout` ends it.
if [ "${1-}" = --ask ]; then
    shift
    converse "$@" || exit 1
    printf '%s' "$REPLY"
    exit
fi

# ask HOST,PORT COMMAND...: the reply as lines, or the reason why there is none. Passwords travel in the environment.
ask() {
    local host=${1%,*} port=${1##*,}
    shift
    if [ -n "$CLI" ]; then
        REDISCLI_AUTH=$GATE_PASSWORD VALKEYCLI_AUTH=$GATE_PASSWORD \
            timeout "$ASK_SECONDS" "$CLI" -h "$host" -p "$port" "${CLI_OPTIONS[@]}" "$@" </dev/null 2>&1
    else
        GATE_USER=$GATE_USER GATE_PASSWORD=$GATE_PASSWORD \
            timeout "$ASK_SECONDS" "$BASH" "$SELF" --ask "$host" "$port" "$@" </dev/null 2>&1
    fi | tr -d '\r'
}

# ask_all COMMAND...: asks all of TARGETS at once; ANSWERS in the same order.
ask_all() {
    local target fd fds=() text
    ANSWERS=()
    for target in "${TARGETS[@]}"; do
        exec {fd}< <(ask "$target" "$@")
        fds+=("$fd")
    done
    for fd in "${fds[@]}"; do
        text=
        IFS= read -r -d '' -u "$fd" text
        exec {fd}<&-
        ANSWERS+=("$text")
    done
}

# field NAME TEXT: a value of INFO.
field() {
    local rest=${2#*$'\n'"$1":}
    [ "$rest" = "$2" ] || printf '%s' "${rest%%$'\n'*}"
}

is_self() { # HOST PORT
    local name
    [ "$2" = "$PORT" ] || return 1
    for name in "$ADDRESS" $ALIASES; do [ "$name" != "$1" ] || return 0; done
    return 1
}

has_slots() { # FIELDS OF A LINE OF CLUSTER NODES
    shift 8 2>/dev/null || return 1
    local slot
    for slot; do [[ $slot == \[* ]] || return 0; done
    return 1
}

# open_settings WORD...: reads N/conf/gate.env. As root only as far as that, which the service's user need not be able to
# read; then the hook starts anew as that user, with the same WORDs and the file open.
open_settings() {
    local owner group text=
    if [ -z "${GATE_SETTINGS_OPEN-}" ]; then
        exec 3<"$NODE/conf/gate.env" || exit 1
        owner=0
        [ "$EUID" != 0 ] || read -r owner group < <(stat -c '%u %g' "$NODE/data")
        if [ "${owner:-0}" != 0 ]; then
            GATE_SETTINGS_OPEN=yes exec setpriv --reuid="$owner" --regid="$group" --clear-groups \
                "$BASH" "$SELF" "$@" "$NODE"
        fi
    fi
    unset GATE_SETTINGS_OPEN
    IFS= read -r -d '' -u 3 text
    eval "$text"
    exec 3<&-
    CLI_OPTIONS=(${GATE_USER:+--user "$GATE_USER"} ${TLS_CA:+--tls --cacert "$TLS_CA"} ${TLS_CERT:+--cert "$TLS_CERT" --key "$TLS_KEY"})
}
