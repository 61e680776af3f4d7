#!/usr/bin/env bash
# Writes what the programs of bin say of themselves: manual pages to build/man, completions for shells to
# build/completions. Where there is a program that judges manual pages, it has to have no objection.
set -euo pipefail

rm -rf build/man build/completions
mkdir -p build/completions/{bash,zsh,fish}
for program in docex-proxy docexctl; do
	"bin/$program" man build/man
	"bin/$program" completion bash >"build/completions/bash/$program"
	"bin/$program" completion zsh >"build/completions/zsh/_$program"
	"bin/$program" completion fish >"build/completions/fish/$program.fish"
done

if command -v man >/dev/null && man --help 2>/dev/null | grep -q -e --warnings; then
	for page in build/man/*; do
		objections=$(LC_ALL=C.UTF-8 man --warnings --local-file "$page" 2>&1 >/dev/null)
		[ -z "$objections" ] || {
			echo "$page: $objections" >&2
			exit 1
		}
	done
fi
echo "build/man has $(find build/man -type f | wc -l) pages"
