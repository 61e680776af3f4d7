#!/usr/bin/env bash
# Runs every fuzz target of the module for a short time each: scripts/fuzz.sh 5s
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:?usage: scripts/fuzz.sh DURATION}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Minimising what is merely interesting could take longer than the whole run.
run() { go test -run '^$' -fuzz "^$1\$" -fuzztime "$time" -fuzzminimizetime 1x "$2"; }

# Before Go 1.27 the end of -fuzztime can be reported as a failure with nothing found (go.dev/issue/75804). A failing
# input is always announced; only a failure without one is tried again.
ended_by_the_clock() { grep -q 'context deadline exceeded' "$log" && ! grep -q 'Failing input written to' "$log"; }

fuzz() {
	echo "$2 $1"
	for _ in 1 2 3; do
		if run "$1" "$2" >"$log" 2>&1; then
			tail -n 1 "$log"
			return
		fi
		ended_by_the_clock || break
	done
	cat "$log"
	return 1
}

targets=$(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sort)
while IFS=: read -r file function; do
	fuzz "${function#func }" "$(dirname "$file")"
done <<<"$targets"
