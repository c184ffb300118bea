#!/usr/bin/env bash
# `without_registry.sh make image test-image`: runs a command beside a Docker engine of its own, where no registry can be
# reached. The images that are asked for by name are made here: Python's by debootstrap, Prometheus' from Debian's package.
# Debian, root. The engine ends with the command; what it holds stays in build/docker until `rm -r` or the next time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
engine=$PWD/build/docker
export DOCKER_HOST=unix://$engine/socket
export BUILD_FLAGS="--network=host ${BUILD_FLAGS-}" # there is no bridge to build on
mkdir -p "$engine/bin"

command -v dockerd debootstrap >/dev/null || apt-get install --quiet --quiet --yes --no-install-recommends docker.io debootstrap
ln -sf /usr/bin/docker "$engine/bin" # the engine's own client: another may want plugins to build
export PATH=$engine/bin:$PATH

dockerd --data-root "$engine/data" --exec-root "$engine/exec" --host "$DOCKER_HOST" --pidfile "$engine/pid" \
  --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false >"$engine/log" 2>&1 &
dockerd=$!
trap 'kill $dockerd; wait $dockerd || true' EXIT
for _ in $(seq 60); do docker version >/dev/null 2>&1 && break || sleep 1; done
docker version >/dev/null 2>&1 || { echo "the Docker engine does not start:"; tail --lines 3 "$engine/log"; exit 1; } >&2

python=$(sed -n 's/^ARG PYTHON_IMAGE=//p' deploy/docker/Dockerfile)
if ! docker image inspect "$python" >/dev/null 2>&1; then
  base=$(mktemp --directory)
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$base"
  cp /etc/ssl/certs/ca-certificates.crt "$base/etc/ssl/certs/" # whom this machine trusts
  tar --directory "$base" --create . | docker import - "$python"
  rm --recursive "$base"
fi

prometheus=$(sed -n 's/^ *image: \(prom\/.*\)/\1/p' deploy/compose/compose.yaml)
if ! docker image inspect "$prometheus" >/dev/null 2>&1; then
  DOCKER_BUILDKIT=1 docker build --network=host --tag "$prometheus" - <<DOCKERFILE
FROM $python
RUN apt-get update && apt-get install --yes --no-install-recommends prometheus \
    && install --directory --owner nobody --group nogroup /prometheus
USER nobody
WORKDIR /prometheus
VOLUME /prometheus
ENTRYPOINT ["/usr/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
DOCKERFILE
fi

"$@"
