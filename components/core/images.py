"""Names of the container images, one a purpose; `images/` holds their Dockerfiles.

A registry of one's own: set ``HASTEN_REGISTRY`` (and ``HASTEN_TAG``) when the pipelines are compiled.
"""

import os

_REGISTRY = os.environ.get("HASTEN_REGISTRY", "ghcr.io/hasten")
_TAG = os.environ.get("HASTEN_TAG", "0.1.0")

# KFP's local runner warns about every image without "python" in its name.
LIGHT_IMAGE = f"{_REGISTRY}/hasten-python-light:{_TAG}"
"""Contracts, storage, fetch, leaderboard, report, publish: no torch."""
TORCH_IMAGE = f"{_REGISTRY}/hasten-python-torch:{_TAG}"
"""Export, surgery, int8, fp16 and CPU benchmarks: torch, ONNX Runtime, OpenVINO, NNCF."""
TENSORRT_IMAGE = f"{_REGISTRY}/hasten-python-tensorrt:{_TAG}"
"""Engine builds and GPU benchmarks: NVIDIA's TensorRT image."""
