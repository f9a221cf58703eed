#!/usr/bin/env bash
# What is released, into dist/: for each architecture an archive and a Debian package, the Helm chart, and SHA256SUMS. `make dist` runs
# it. The same commit and the same Go give the same bytes, in any folder, by any user and at any time.
#
#   VERSION            as `git describe --tags` says it
#   COMMIT             of the sources
#   SOURCE_DATE_EPOCH  time of every file, seconds since 1970; default: of the commit
#   DIST_ARCHS         default: amd64 arm64
#   NFPM               nfpm, which writes the Debian packages
#
# Needs Go, git (unless all of the above are set), GNU tar and gzip.
set -euo pipefail
export LC_ALL=C TZ=UTC
umask 022
cd "$(dirname "$0")/.."

: "${VERSION:?}" "${COMMIT:?}" "${NFPM:?}"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
read -r -a archs <<<"${DIST_ARCHS:-amd64 arm64}"
readonly connections=100000 # that the package's kernel settings are for

# What of the environment could change a build.
export CGO_ENABLED=0 GOOS=linux GOFLAGS='' GOEXPERIMENT='' GOAMD64=v1 GOARM64=v8.0 GOWORK=off

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# number VERSION: as Helm wants it (SemVer). Commits after a tag count as later than it, which "-5-gabc" would not.
number() {
  local v=${1#v}
  if [[ $v =~ ^([0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?)-([0-9]+-g[0-9a-f]+(-dirty)?)$ ]]; then
    v=${BASH_REMATCH[1]}+${BASH_REMATCH[3]//-/.}
  elif [[ $v =~ ^([0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?)-dirty$ ]]; then
    v=${BASH_REMATCH[1]}+dirty
  elif [[ ! $v =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$ ]]; then
    v=0.0.0+${v//[^0-9A-Za-z]/.} # no tag yet
  fi
  echo "$v"
}

# archive NAME FOLDER: a tar of work/FOLDER with nothing in it of who made it and when.
archive() {
  tar --create --directory "$work/${2%/*}" --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
    --mode=u=rwX,go=rX "${2##*/}" | gzip -n >"$1"
}

# sysctl_file: what tune-host.sh sets on a kernel that knows the settings with the same default everywhere. Those that follow the memory
# of the host (fs.file-max, tcp_mem, conntrack) or are enough as they come (fs.nr_open) cannot stand in a file for all hosts.
sysctl_file() {
  local host=$work/host key
  mkdir -p "$host/proc/sys/net/core" "$host/proc/sys/net/ipv4"
  for key in core/somaxconn=4096 core/netdev_max_backlog=1000 ipv4/tcp_max_syn_backlog=128 'ipv4/ip_local_port_range=32768 60999' \
    'ipv4/tcp_rmem=4096 131072 6291456' 'ipv4/tcp_wmem=4096 16384 4194304' ipv4/tcp_notsent_lowat=4294967295 \
    ipv4/tcp_keepalive_time=7200 ipv4/tcp_keepalive_intvl=75 ipv4/tcp_keepalive_probes=9; do
    echo "${key#*=}" >"$host/proc/sys/net/${key%%=*}"
  done
  scripts/tune-host.sh apply --connections "$connections" --root "$host" >/dev/null || [ $? = 1 ] # 1: what is not among them may be short
  cat <<TEXT
# For $connections connections, from scripts/tune-host.sh. For more, or for settings that depend on this host:
#   /usr/share/meshtalk/tune-host.sh check --connections N
# It writes 99-meshtalk.conf, which wins. To have none of these: ln -s /dev/null /etc/sysctl.d/60-meshtalk.conf
TEXT
  awk '/^# [A-Z]/ { why = $0 } /^[a-z]/ { print ""; print why; print }' "$host/etc/sysctl.d/99-meshtalk.conf"
}

# binaries ARCH FOLDER
binaries() {
  GOARCH=$1 go build -trimpath -buildvcs=false -o "$2/" \
    -ldflags "-s -w -X github.com/meshtalk/meshtalk/server.Version=$VERSION -X main.commit=$COMMIT" ./cmd/...
}

# stage ARCH FOLDER: the content of an archive. The paths are those of the repository, which the unit's instructions name.
stage() {
  local shell host
  mkdir -p "$2/completions"
  binaries "$1" "$2/bin"
  host=$2/bin/meshtalk
  if [ "$1" != "$(go env GOHOSTARCH)" ]; then
    host=$work/this/meshtalk
    [ -x "$host" ] || binaries "$(go env GOHOSTARCH)" "${host%/*}"
  fi
  for shell in bash zsh fish; do "$host" completion "$shell" >"$2/completions/meshtalk.$shell"; done
  install -m 644 -D -t "$2" LICENSE NOTICE README.md CHANGELOG.md
  install -m 644 -D -t "$2/deploy" deploy/meshtalk.service deploy/meshtalk.yaml
  install -m 755 -D -t "$2/scripts" scripts/tune-host.sh
}

# deb ARCH FOLDER
deb() {
  sysctl_file >"$2/sysctl.conf"
  cat LICENSE - NOTICE <<<'' >"$2/copyright"
  local version
  version=$(number "$VERSION")
  version=${version/-/\~} # Debian: before the release, as SemVer has it
  ARCH=$1 STAGE=$2 DEB_VERSION=$version \
    "$NFPM" package --config deploy/deb/nfpm.yaml --packager deb --target "dist/meshtalk_${version}_$1.deb" >"$work/nfpm" 2>&1 || { cat "$work/nfpm" >&2; return 1; }
}

chart() {
  cp -R deploy/helm/meshtalk "$work/meshtalk"
  sed -i -e "s/^version: .*/version: $(number "$VERSION")/" -e "s/^appVersion: .*/appVersion: \"$VERSION\"/" "$work/meshtalk/Chart.yaml"
  archive "dist/meshtalk-$(number "$VERSION").tgz" ./meshtalk
}

rm -rf dist
mkdir dist
for arch in "${archs[@]}"; do
  name=meshtalk-$(number "$VERSION")-linux-$arch
  stage "$arch" "$work/$arch/$name"
  archive "dist/$name.tar.gz" "$arch/$name"
  deb "$arch" "$work/$arch/$name"
done
chart
cd dist
sha256sum -- * >SHA256SUMS
cat SHA256SUMS
