#!/usr/bin/env python3
"""Completes and checks a CycloneDX file: scripts/sbom.py FILE MODULE@VERSION...

Licences that the generator does not recognise, or takes for another, are READ below; a module without one fails, as does
one that is linked and not listed.
"""

import json
import sys

READ = {
    "std": "BSD-3-Clause",
    "go.yaml.in/yaml/v3": "MIT AND Apache-2.0",
    "golang.org/x/sync": "BSD-3-Clause",
    "golang.org/x/sys": "BSD-3-Clause",
    "golang.org/x/text": "BSD-3-Clause",
    "golang.org/x/time": "BSD-3-Clause",
    "modernc.org/libc": "BSD-3-Clause AND MIT",
    "modernc.org/sqlite": "BSD-3-Clause AND blessing",
}
NAMED = {"github.com/xi2/xz": "public domain"}  # which has no identifier

path, linked = sys.argv[1], sys.argv[2:]
with open(path) as file:
    document = json.load(file)
for component in document["components"]:
    name = component["name"]
    if name in READ:
        component["licenses"] = [{"expression": READ[name]}]
    elif name in NAMED:
        component["licenses"] = [{"license": {"name": NAMED[name]}}]
    elif not component.get("licenses"):
        sys.exit(f"{path}: no licence is known of {name}")
listed = {f"{c['name']}@{c['version']}" for c in document["components"]}
missing = sorted(set(linked) - listed)
if not linked or missing:
    sys.exit(f"{path} lacks {missing}")
with open(path, "w") as file:
    json.dump(document, file, indent=2)
    file.write("\n")
print(f"{path} lists {len(listed)} modules, {len(linked)} of them linked into the program")
