#!/usr/bin/env bash
# Says what the programs of bin are made of: scripts/sbom.sh DIR writes a CycloneDX file for each program and the texts of
# the licences, and fails when a module that Go has linked is not in them.
set -euo pipefail

dir=$1
mkdir -p "$dir"
linked() { go version -m "bin/$1" | awk '$1 == "dep" { print $2 "@" $3 }'; }

for program in docex-proxy docexctl; do
	CGO_ENABLED=0 go tool -modfile=tools/go.mod cyclonedx-gomod app -json -licenses -assert-licenses -std -noserial \
		-main "cmd/$program" -output "$dir/$program.cdx.json" 2>/dev/null
	python3 scripts/sbom.py "$dir/$program.cdx.json" $(linked "$program")
done

# The licences of BSD and MIT want their texts handed on with programs.
for module in $( (linked docex-proxy && linked docexctl) | sort -u); do
	folder=$(go list -m -f '{{.Dir}}' "${module%@*}")
	texts=$(find "$folder" -maxdepth 1 -type f -iregex '.*/\(\(un\)?licen[cs]e\|copying\|notice\)[^/]*' | sort)
	[ -n "$texts" ] || {
		echo "$module comes without the text of its licence" >&2
		exit 1
	}
	printf '%s\n\n' "== $module"
	cat $texts
	echo
done >"$dir/licences.txt"
