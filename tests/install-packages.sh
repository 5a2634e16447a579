#!/bin/sh
# Installs the Debian packages named that are missing. Asks nothing, and starts no service that was not there before.
set -eu

missing=
for package in "$@"; do
    state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive

# Debian starts a server as soon as it is installed, on the very port that tests may want.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' INT TERM
fi

install() {
    # shellcheck disable=SC2086 # a list of words
    apt-get install --quiet --quiet --yes --no-install-recommends $missing >/dev/null
}
# the package lists may be missing or old; fetching them takes long, so only then
install 2>/dev/null || { apt-get update --quiet --quiet && install; }
