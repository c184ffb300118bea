#!/usr/bin/env bash
# A Docker engine of its own under build/docker, and a base image made by debootstrap under the name that the Dockerfile
# asks for: `make image` where no registry can be reached. Debian, root. `without_registry.sh stop` ends the engine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
engine=$PWD/build/docker
export DOCKER_HOST=unix://$engine/socket

if [ "${1-}" = stop ]; then
  kill "$(cat "$engine/pid")"
  exit
fi

mkdir -p "$engine"
command -v dockerd debootstrap >/dev/null || apt-get install --quiet --quiet --yes --no-install-recommends docker.io debootstrap
setsid dockerd --data-root "$engine/data" --exec-root "$engine/exec" --host "$DOCKER_HOST" --pidfile "$engine/pid" \
  --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false >"$engine/log" 2>&1 &
for _ in $(seq 30); do docker version >/dev/null 2>&1 && break || sleep 1; done

image=$(sed -n 's/^ARG PYTHON_IMAGE=//p' deploy/docker/Dockerfile)
if ! docker image inspect "$image" >/dev/null 2>&1; then
  base=$(mktemp --directory)
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$base"
  cp /etc/ssl/certs/ca-certificates.crt "$base/etc/ssl/certs/"  # whom this machine trusts
  tar --directory "$base" --create . | docker import - "$image"
  rm --recursive "$base"
fi
echo "export DOCKER_HOST=$DOCKER_HOST"
