#!/usr/bin/env bash
# All that has to run on a CUDA card, in at most 8 minutes: tests, agreement with the CPU, measurements, one page.
# Usage: benchmarks/on_gpu.sh [PART ...] [--data DIR] [--output DIR] [--device cuda|cpu]; --help lists the parts.
set -euo pipefail
cd "$(dirname "$0")/.."
# featbench need not be installed: it is imported from this checkout.
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" benchmarks/on_gpu.py "$@"
