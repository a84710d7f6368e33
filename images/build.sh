#!/bin/sh
# Builds images: build.sh NAME... with docker, or buildah. Environment:
#   HASTEN_REGISTRY, HASTEN_TAG   as for `hasten compile`
#   HASTEN_BUILDER                docker or buildah; default: docker where it is installed
#   BASE_<NAME>                   base image of that image, for instance BASE_LIGHT=python:3.11-slim@sha256:...
#   BUILD_ARGS                    further arguments of the builder, for instance --build-arg TORCH_INDEX=...
set -eu
cd "$(dirname "$0")/.."
registry=${HASTEN_REGISTRY:-ghcr.io/hasten}
tag=${HASTEN_TAG:-0.1.0}
revision=$(git rev-parse HEAD 2> /dev/null || echo unknown)
tool=${HASTEN_BUILDER:-$(command -v docker > /dev/null && echo docker || echo buildah)}
case $tool in
  docker) builder="docker build" ;;
  # HEALTHCHECK is of Docker's image format and not of OCI's.
  buildah) builder="buildah bud --format docker --layers" ;;
  *) echo "HASTEN_BUILDER: given $tool, accepted: docker, buildah" >&2; exit 2 ;;
esac
if ! command -v "$tool" > /dev/null; then
  echo "neither docker nor buildah is installed" >&2
  exit 1
fi
for name in "$@"; do
  base=$(printenv "BASE_$(echo "$name" | tr '[:lower:]' '[:upper:]')" || true)
  # shellcheck disable=SC2086
  $builder ${BUILD_ARGS:-} ${base:+--build-arg "BASE=$base"} --build-arg "VERSION=$tag" --build-arg "REVISION=$revision" \
    -f "images/$name/Dockerfile" -t "$registry/hasten-python-$name:$tag" .
done
