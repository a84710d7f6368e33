#!/bin/sh
# Writes images/<name>/requirements.txt, every version pinned and hashed, from the extras that the image needs.
# lock.sh --upgrade UV: to the newest versions; lock.sh --check UV: fails where a lock no longer fits pyproject.toml.
set -eu
cd "$(dirname "$0")/.."
mode=$1
uv=$2

lock() {
  name=$1
  shift
  locked=images/$name/requirements.txt
  target=$locked
  set -- "$@" --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes --no-header --no-emit-index-url
  if [ "$mode" = --check ]; then
    # A copy is resolved with its own pins preferred: it changes only where pyproject.toml asks for something else.
    target=$(mktemp)
    cp "$locked" "$target"
  else
    set -- "$@" --upgrade
  fi
  "$uv" pip compile pyproject.toml "$@" -q -o "$target"
  if [ "$mode" = --check ]; then
    cmp -s "$locked" "$target" || { echo "$locked does not fit pyproject.toml: run make images-lock" >&2; exit 1; }
    rm -f "$target"
  fi
}

lock light --extra report --extra registry --extra audio
# Of OpenCV, which libreyolo needs, the build that runs where there is no display.
lock torch images/torch/headless.in --extra laptop --overrides images/torch/overrides.txt
lock tensorrt --extra export --extra surgery --extra onnxruntime --extra openvino --extra benchmark --extra text --extra audio \
  --extra report
