#!/usr/bin/env bash
# Sees to the programs that the demo, the tests, the benchmark, the browser, the fleet or the check of the alert rules need:
# scripts/deps.sh demo|test|bench|browser|fleet|promtool
#
# As root on Debian and Ubuntu it installs what is missing. Everywhere else it names it, with the line that installs it,
# and fails.
set -euo pipefail

purpose=${1:-}
case $purpose in
demo | test | bench | browser | fleet | promtool) ;;
*)
	echo "usage: scripts/deps.sh demo|test|bench|browser|fleet|promtool" >&2
	exit 2
	;;
esac

# Each check succeeds when the thing is there.
has() { command -v "$1" >/dev/null 2>&1; }

# The places where docex-proxy itself looks. The server's own folder is rarely in PATH.
has_postgres() {
	local dir
	has initdb && has postgres && return
	for dir in "$(pg_config --bindir 2>/dev/null || true)" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
		/opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin; do
		[ -x "$dir/initdb" ] && [ -x "$dir/postgres" ] && return
	done
	return 1
}
has_clients() { has psql && has pgbench; }
has_psycopg2() { /usr/bin/python3 -c 'import psycopg2' 2>/dev/null; }
has_pgbouncer() { has pgbouncer; }
has_chromium() { has chromium || has chromium-browser || has google-chrome; }
has_haproxy() { has haproxy; }
has_node() { has node && has npm; }
has_promtool() { has promtool; }
has_compiler() { has "${CC:-gcc}" || has cc; } # the race detector is linked by it

has go || {
	echo "Go 1.26 is missing: https://go.dev/dl" >&2
	exit 1
}

debian=() fedora=() brew=()
need() { # check, then the packages of Debian, Fedora and Homebrew
	"$1" && return
	debian+=($2) fedora+=($3) brew+=($4)
}

if [ "$purpose" = promtool ]; then
	need has_promtool prometheus golang-github-prometheus prometheus
else
	need has_postgres postgresql postgresql-server postgresql@17
fi
if [ "$purpose" = test ] || [ "$purpose" = bench ]; then
	need has_clients "postgresql-client postgresql-contrib" "postgresql postgresql-contrib" postgresql@17
fi
if [ "$purpose" = bench ]; then
	need has_pgbouncer pgbouncer pgbouncer pgbouncer
fi
if [ "$purpose" = browser ]; then
	need has_chromium chromium chromium chromium
fi
if [ "$purpose" = fleet ]; then
	need has_haproxy haproxy haproxy haproxy
fi
if [ "$purpose" = test ]; then
	need has_psycopg2 "python3 python3-psycopg2" "python3 python3-psycopg2" psycopg2
	need has_node "nodejs npm" "nodejs npm" node
	need has_compiler "gcc libc6-dev" "gcc glibc-devel" gcc
fi
[ ${#debian[@]} -gt 0 ] || exit 0

install() { DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${debian[@]}" >/dev/null; }

if has apt-get && [ "$(id -u)" = 0 ]; then
	echo "installing ${debian[*]}"
	# The package lists of a fresh machine are empty or old; a third-party list that cannot be fetched is no reason to fail.
	install 2>/dev/null || {
		apt-get update >/dev/null || true
		install
	}
	exit 0
fi

if has apt-get; then
	line="sudo apt-get install ${debian[*]}"
elif has dnf; then
	line="sudo dnf install ${fedora[*]}"
elif has brew; then
	line="brew install ${brew[*]}"
else
	line="install what these Debian packages hold: ${debian[*]}"
fi
echo "something is missing for 'make $purpose': $line" >&2
exit 1
