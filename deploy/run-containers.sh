#!/usr/bin/env bash
# Builds the image and runs the compose file for real: build, start, health, smoke check, restart (collections survive), down.
#
#   deploy/run-containers.sh                 with Docker's engine when one answers, else podman (root, Debian)
#   WORK=DIR deploy/run-containers.sh        keep the scratch folder (base image, layers) for the next run
#   PORT=18000  BUNDLE=DIR  KEEP=1           another port; a bundle of yours instead of the packaged one; leave it running
#
# It works on machines without an image registry: where python:3.11-slim cannot be pulled, a stand-in of the same Python
# minor is made by debootstrap (see docs/deploy.md). Package index settings come from this machine's `pip config list`
# and are mounted for the build only. Nothing is written into the checkout.
set -euo pipefail

REPO=$(cd "$(dirname "$0")/.." && pwd)
PORT=${PORT:-8000}
BUNDLE=${BUNDLE:-}
KEEP=${KEEP:-}
PROJECT=bindery-check
IMAGE=bindery:cpu
BASE=python:3.11-slim
if [ -n "${WORK:-}" ]; then mkdir -p "$WORK"; SCRATCH=; else WORK=$(mktemp -d); SCRATCH=$WORK; fi
export PUBLISH=127.0.0.1:$PORT

say() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$*"; }
PYTHON=$(command -v python3.11 || command -v python3)

# ---- which engine -------------------------------------------------------------------------------------------------
setup_podman() {
  if ! command -v podman >/dev/null || ! command -v netavark >/dev/null && [ ! -x /usr/lib/podman/netavark ]; then
    apt-get -o DPkg::Lock::Timeout=300 update -qq
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends \
      podman buildah runc netavark aardvark-dns iptables debootstrap >/dev/null
  fi
  mkdir -p "$WORK/net"
  # Limits as they are: without CAP_SYS_RESOURCE none may be raised. runc: crun refuses hybrid control groups.
  cat > "$WORK/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=$(ulimit -Hn):$(ulimit -Hn)", "nproc=32768:32768"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "netavark"
network_config_dir = "$WORK/net"
CONF
  cat > "$WORK/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$WORK/graph"
runroot = "$WORK/run"
CONF
  # docker format: the OCI format has no health check.
  export CONTAINERS_CONF=$WORK/containers.conf CONTAINERS_STORAGE_CONF=$WORK/storage.conf BUILDAH_FORMAT=docker
  if [ ! -x "$WORK/tools/bin/podman-compose" ]; then
    "$PYTHON" -m venv "$WORK/tools"
    "$WORK/tools/bin/pip" install -qq podman-compose==1.6.0
  fi
}

if docker version --format '{{.Server.Version}}' >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; then
  ENGINE=docker
  compose() { (cd "$REPO" && docker compose --project-name "$PROJECT" "$@"); }
else
  ENGINE=podman
  setup_podman
  compose() { (cd "$REPO" && "$WORK/tools/bin/podman-compose" --no-ansi --project-name "$PROJECT" "$@"); }
fi
say "engine: $($ENGINE --version)"

# ---- leave nothing behind -----------------------------------------------------------------------------------------
clean_up() {
  status=$?
  trap - EXIT
  if [ -n "$KEEP" ]; then
    say "left running on $PUBLISH (project $PROJECT, work folder $WORK)"
    exit $status
  fi
  if [ $status -ne 0 ]; then compose logs 2>/dev/null | tail -40 || true; fi
  compose down --volumes >/dev/null 2>&1 || true
  if [ -n "$SCRATCH" ] && [ "$ENGINE" = podman ]; then
    podman rmi --all --force >/dev/null 2>&1 || true
    # Layers are mounts: what is still mounted must go before the folder does.
    awk -v under="$SCRATCH/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount || true
  fi
  if [ -n "$SCRATCH" ]; then rm -rf "$SCRATCH"; fi
  exit $status
}
trap clean_up EXIT

# ---- the base image -----------------------------------------------------------------------------------------------
stand_in_base() {
  root=$WORK/base
  # Debian's own Python of the same minor; links and a pip command imitate the official image.
  debootstrap --variant=minbase --include=python3.11,python3-pip,python3.11-venv,ca-certificates bookworm "$root" >"$WORK/debootstrap.log"
  for name in python python3 python3.11; do ln -sf /usr/bin/python3.11 "$root/usr/local/bin/$name"; done
  printf '#!/usr/local/bin/python\nfrom pip._internal.cli.main import main\nraise SystemExit(main())\n' >"$root/usr/local/bin/pip"
  chmod +x "$root/usr/local/bin/pip"
  rm -rf "$root/usr/lib/python3.11/EXTERNALLY-MANAGED" "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
  tar -C "$root" -c . | podman import --quiet --change 'CMD ["python3"]' \
    --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' - "$BASE" >/dev/null
  rm -rf "$root"
}

if [ "$ENGINE" = podman ] && ! podman image exists "$BASE"; then
  if timeout 120 podman pull --quiet "$BASE" >"$WORK/pull.log" 2>&1; then
    say "base: pulled $BASE"
  else
    say "base: no image registry answers; making a stand-in of $BASE by debootstrap"
    stand_in_base
  fi
fi
if [ "$ENGINE" = podman ]; then say "base: $(podman image inspect --format '{{.Size}}' "$BASE" | awk '{ printf "%.0f MB", $1 / 1e6 }')"; fi

# ---- build --------------------------------------------------------------------------------------------------------
# pip's own view of this machine, as the file that the build's two pip steps read, and nothing else does.
PIPCONF=$WORK/pip.conf
CA=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
"$PYTHON" -m pip config list | "$PYTHON" -c '
import ast, sys
kept = {}
for line in sys.stdin:
    key, _, value = line.strip().partition("=")
    name = key.removeprefix(":env:.").rpartition(".")[2]
    if name in ("index-url", "extra-index-url", "find-links", "trusted-host", "proxy"):
        kept[name] = " ".join(ast.literal_eval(value).split())
print("[global]", "cert = /etc/ssl/certs/private-ca.pem", *(f"{name} = {value}" for name, value in kept.items()), sep="\n")' >"$PIPCONF"
BUILD=(--secret "id=pipconf,src=$PIPCONF" --secret "id=ca,src=$CA" --network host --build-arg ENGINE=cpu --tag "$IMAGE")
if [ "$ENGINE" = podman ]; then
  # Wheels that lie on this machine's disk.
  for folder in $(grep -oE '(file://)?/[^ ]+' "$PIPCONF" | sed -E 's#^file://##; s#/simple/?$##'); do
    if [ -d "$folder" ]; then BUILD+=(--volume "$folder:$folder:ro"); fi
  done
fi
started=$SECONDS
$ENGINE build "${BUILD[@]}" "$REPO" >"$WORK/build.log" 2>&1 || { tail -40 "$WORK/build.log"; exit 1; }
rm -f "$PIPCONF"
say "build: $((SECONDS - started)) s, image $($ENGINE image inspect --format '{{.Size}}' "$IMAGE" | awk '{ printf "%.0f MB", $1 / 1e6 }') (log: $WORK/build.log)"

# ---- what is in it ------------------------------------------------------------------------------------------------
$ENGINE run --rm --network none --no-healthcheck "$IMAGE" python -c '
import importlib.util, os, pathlib
assert os.getuid() == 10001, os.getuid()
for name in ("torch", "transformers", "training", "export", "pip"):
    assert importlib.util.find_spec(name) is None, f"{name} is in the image"
left = [p for p in ("/etc/pip.conf", "/etc/ssl/certs/private-ca.pem") if os.path.exists(p) and os.path.getsize(p)]
assert not left, left'
say "image: uid 10001, no torch, no pip in its environment, no build secret"

# ---- run ----------------------------------------------------------------------------------------------------------
container() { $ENGINE ps --all --quiet --filter "label=com.docker.compose.project=$PROJECT" | head -1; }
wait_until_ready() {
  for _ in $(seq 120); do
    # podman runs health checks only when asked (Docker's engine runs them by itself).
    if [ "$ENGINE" = podman ]; then
      if podman healthcheck run "$(container)" >/dev/null 2>&1; then return 0; fi
    elif [ "$(docker inspect --format '{{.State.Health.Status}}' "$(container)")" = healthy ]; then
      return 0
    fi
    sleep 0.5
  done
  say "never became healthy"
  return 1
}
started_at() { date +%s%N; }
since() { awk -v ns="$(($(date +%s%N) - $1))" 'BEGIN { printf "%.1f s", ns / 1e9 }'; }

compose down --volumes >/dev/null 2>&1 || true
if [ -n "$BUNDLE" ]; then
  export BINDERY_BUNDLE; BINDERY_BUNDLE=$(basename "$BUNDLE")
  compose up --no-start --no-build >/dev/null 2>&1
  tar -C "$(dirname "$BUNDLE")" -c "$BINDERY_BUNDLE" | $ENGINE run --rm --no-healthcheck --interactive --user 0 --volume "${PROJECT}_bundles:/bundles" "$IMAGE" tar -C /bundles -x --no-same-owner
  say "bundle: $BINDERY_BUNDLE copied into the volume"
fi
begin=$(started_at)
compose up --detach --no-build >"$WORK/up.log" 2>&1 || { cat "$WORK/up.log"; exit 1; }
wait_until_ready
say "up: healthy after $(since "$begin")"

smoke() { "$PYTHON" -B "$REPO/deploy/smoke.py" "http://$PUBLISH" --examples "$REPO/examples" "$@"; }
smoke
smoke --remember kept-over-a-restart

begin=$(started_at)
compose stop >/dev/null 2>&1
code=$($ENGINE inspect --format '{{.State.ExitCode}}' "$(container)")
say "stop: $(since "$begin"), exit code $code"
if [ "$code" = 137 ]; then say "it had to be killed: SIGTERM did not drain it"; exit 1; fi
compose down >/dev/null 2>&1
begin=$(started_at)
compose up --detach --no-build >"$WORK/up.log" 2>&1
wait_until_ready
say "up again, a new container on the same volumes: healthy after $(since "$begin")"
smoke --recall kept-over-a-restart

compose down --volumes >/dev/null 2>&1
if [ -n "$($ENGINE volume ls --quiet --filter "name=${PROJECT}_")" ]; then say "volumes are left"; exit 1; fi
say "down --volumes: nothing left. All well."
