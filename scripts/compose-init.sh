#!/bin/sh
# What the compose file's init service does. It may run again.
set -eu

docexctl init
docexctl tenant create acme --display-name 'Acme Corp' --created-by compose --if-not-exists
docexctl tenant create globex --display-name Globex --created-by compose --if-not-exists

already_there=4
code=0
printf '%s\n' "$APP_PASSWORD" | docexctl login create app --all-tenants --password-stdin || code=$?
[ "$code" = 0 ] || [ "$code" = "$already_there" ]
