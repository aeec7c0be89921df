#!/usr/bin/env bash
# Build the image, print its size, and write its bill of materials beside it. `make image` runs this.
#   FLAVOUR=cuda|cpu   BASE_IMAGE=...   IMAGE=dier:VERSION   BUILDER=docker|podman (default: the first one there)
#   TORCH_INDEX_URL=... (a mirror of PyTorch's CPU builds, for FLAVOUR=cpu)   NETWORK=... (of the build; default: the engine's own)
set -euo pipefail
cd "$(dirname "$0")/../.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
image=${IMAGE:-dier:$version}
python=${PYTHON:-python3}

builder=${BUILDER:-}
for candidate in docker podman; do
  if [ -z "$builder" ] && command -v "$candidate" >/dev/null; then builder=$candidate; fi
done
[ -n "$builder" ] || { echo "make image: no docker or podman on PATH; install one (buildah bud --file Containerfile works by hand)" >&2; exit 1; }

arguments=(--file Containerfile --tag "$image" --build-arg "VERSION=$version" --build-arg "FLAVOUR=${FLAVOUR:-cuda}")
commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain --untracked-files=no 2>/dev/null)" ] || commit="$commit-dirty"
arguments+=(--build-arg "GIT_COMMIT=$commit")
[ -z "${BASE_IMAGE:-}" ] || arguments+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
[ -z "${TORCH_INDEX_URL:-}" ] || arguments+=(--build-arg "TORCH_INDEX_URL=$TORCH_INDEX_URL")

# The package index that pip is told to use instead of PyPI.
index=${PIP_INDEX_URL:-$("$python" -m pip config get global.index-url 2>/dev/null || true)}
[ -z "$index" ] || arguments+=(--build-arg "PIP_INDEX_URL=$index")

# Package indexes that pip is told to use besides it. Folders on this machine are served to the build over loopback.
indexes=${PIP_EXTRA_INDEX_URL:-$("$python" -m pip config get global.extra-index-url 2>/dev/null || true)}
servers=()
trap 'for pid in "${servers[@]}"; do kill "$pid" 2>/dev/null || true; done' EXIT
port=${INDEX_PORT:-18181}
given=()
for index in $indexes; do
  if [[ $index == file://* ]]; then
    folder=${index#file://}
    "$python" -m http.server "$port" --bind 127.0.0.1 --directory "${folder%/simple*}" >/dev/null 2>&1 &
    servers+=($!)
    index="http://127.0.0.1:$port/simple"
    port=$((port + 1))
  fi
  given+=("$index")
done
[ ${#given[@]} = 0 ] || arguments+=(--build-arg "PIP_EXTRA_INDEX_URL=${given[*]}")

# The host's network where folders are served over loopback, and where the engine has no network of its own, as that of .ci/engine.
network=${NETWORK:-}
if [ -z "$network" ] && { [ ${#servers[@]} != 0 ] || ! "$builder" network ls --format '{{.Name}}' | grep -xE 'bridge|podman' >/dev/null; }; then
  network=host
fi
[ -z "$network" ] || arguments+=(--network "$network")

start=$(date +%s)
"$builder" build "${arguments[@]}" .
seconds=$(($(date +%s) - start))

mkdir -p .work/image
container=$("$builder" create --network none "$image")
"$builder" cp "$container:/opt/dier/sbom.cdx.json" .work/image/sbom.cdx.json
"$builder" rm "$container" >/dev/null
bytes=$("$builder" image inspect --format '{{.Size}}' "$image")
echo "image         $image, $((bytes / 1000000)) MB, built in $seconds s"
echo "contents      .work/image/sbom.cdx.json (CycloneDX)"
