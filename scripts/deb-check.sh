#!/usr/bin/env bash
# Installs the Debian package on this machine as an administrator would, tries it, and purges it again:
# scripts/deb-check.sh FILE.deb
set -euo pipefail

package=$(realpath "$1")
[ "$(id -u)" = 0 ] || {
	echo "scripts/deb-check.sh installs a package: run it as root, best in a container" >&2
	exit 1
}
if dpkg-query --show docex-proxy >/dev/null 2>&1 || [ -e /etc/docex-proxy ]; then
	echo "docex-proxy is on this machine already: the check would purge it" >&2
	exit 1
fi

failed() {
	echo "failed: $*" >&2
	exit 1
}
as_service() { setpriv --reuid docex-proxy --regid docex-proxy --clear-groups "$@"; }
cleanup() {
	rm -rf /etc/docex-proxy/master.key
	dpkg --purge docex-proxy >/dev/null 2>&1 || true
	rmdir /etc/docex-proxy 2>/dev/null || true
}
trap cleanup EXIT

dpkg-deb --info "$package"
listed=$(dpkg-deb --contents "$package" | awk '{ print $NF }' FS='[ ]+')
for file in /usr/bin/docex-proxy /usr/bin/docexctl /etc/docex-proxy/docex-proxy.yaml /usr/lib/systemd/system/docex-proxy.service \
	/usr/share/man/man1/docex-proxy-serve.1 /usr/share/man/man1/docexctl-tenant-create.1 \
	/usr/share/bash-completion/completions/docexctl /usr/share/zsh/vendor-completions/_docexctl \
	/usr/share/fish/vendor_completions.d/docexctl.fish /usr/share/doc/docex-proxy/copyright \
	/usr/share/doc/docex-proxy/sbom/docex-proxy.cdx.json; do
	grep -qxF ".$file" <<<"$listed" || failed "$file is not in the package"
done
[ "$(dpkg-deb --info "$package" conffiles)" = /etc/docex-proxy/docex-proxy.yaml ] || failed "the configuration is no conffile"

DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$package" >/dev/null

echo "installed: $(docex-proxy version); $(docexctl version)"
getent passwd docex-proxy | grep -q ':/nonexistent:.*nologin' || failed "the account is not a system's"
[ "$(stat --format='%U %G %a' /etc/docex-proxy)" = "root docex-proxy 750" ] || failed "modes of /etc/docex-proxy"
[ "$(stat --format='%U %G %a' /etc/docex-proxy/docex-proxy.yaml)" = "root docex-proxy 640" ] || failed "modes of the configuration"
if pidof docex-proxy >/dev/null; then failed "it was started"; fi

config=/etc/docex-proxy/docex-proxy.yaml
if says=$(as_service docex-proxy check-config --config $config 2>&1); then failed "there is no master key, and nothing is wrong"; fi
grep -q /etc/docex-proxy/master.key <<<"$says" || failed "check-config says $says"
install -o root -g docex-proxy -m 0640 /dev/null /etc/docex-proxy/master.key
printf '%064d\n' 0 >/etc/docex-proxy/master.key
[ "$(as_service docex-proxy check-config --config $config)" = ok ] || failed "the configuration that is installed is wrong"
if setpriv --reuid nobody --clear-groups docex-proxy check-config --config $config >/dev/null 2>&1; then failed "others may read the key"; fi

if command -v systemd-analyze >/dev/null; then
	systemd-analyze verify /usr/lib/systemd/system/docex-proxy.service
	systemd-analyze security --offline=true --no-pager /usr/lib/systemd/system/docex-proxy.service | tail -1
fi

echo "# an administrator's line" >>$config
dpkg --install "$package" >/dev/null 2>&1 </dev/null
tail -1 $config | grep -q administrator || failed "an upgrade has changed the configuration"

dpkg --remove docex-proxy >/dev/null 2>&1
[ -e $config ] || failed "removing has taken the configuration"
dpkg --purge docex-proxy >/dev/null 2>&1
[ ! -e $config ] || failed "purging has left the configuration"
[ -e /etc/docex-proxy/master.key ] || failed "purging has taken the master key"
if command -v docex-proxy >/dev/null; then failed "the program is still there"; fi
echo "the package installs, runs, upgrades, and goes away"
