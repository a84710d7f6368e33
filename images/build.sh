#!/bin/sh
# Builds images: build.sh NAME... with docker, or buildah. Environment:
#   HASTEN_REGISTRY, HASTEN_TAG   as for `hasten compile`
#   BASE_<NAME>                   base image of that image, for instance BASE_LIGHT=python:3.11-slim@sha256:...
#   BUILD_ARGS                    further arguments of the builder, for instance --build-arg TORCH_INDEX=...
set -eu
cd "$(dirname "$0")/.."
registry=${HASTEN_REGISTRY:-ghcr.io/hasten}
tag=${HASTEN_TAG:-0.1.0}
revision=$(git rev-parse HEAD 2> /dev/null || echo unknown)
if command -v docker > /dev/null; then
  builder="docker build"
elif command -v buildah > /dev/null; then
  # HEALTHCHECK is of Docker's image format and not of OCI's.
  builder="buildah bud --format docker --layers"
else
  echo "neither docker nor buildah is installed" >&2
  exit 1
fi
for name in "$@"; do
  base=$(printenv "BASE_$(echo "$name" | tr '[:lower:]' '[:upper:]')" || true)
  # shellcheck disable=SC2086
  $builder ${BUILD_ARGS:-} ${base:+--build-arg "BASE=$base"} --build-arg "VERSION=$tag" --build-arg "REVISION=$revision" \
    -f "images/$name/Dockerfile" -t "$registry/hasten-python-$name:$tag" .
done
