"""`featbench ui`: MLflow's page on the comparisons of a store."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from featbench.cli.options import read_text
from featbench.errors import UsageError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `featbench ui`."""
    parser.add_argument(
        "--home", type=read_text, metavar="PATH", help="the store (default: FEATBENCH_HOME, else .featbench)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=5000, help="port to listen on (default: 5000)")


def run(options: argparse.Namespace) -> int:
    """Run MLflow's server on the store's database until it is interrupted, and return its exit code."""
    from featbench.execution.tracking_address import find_artifact_folder, find_database, find_own_uri
    from featbench.execution.tracking_client import ENVIRONMENT
    from featbench.store.store import Store

    store = Store(None if options.home is None else Path(options.home))
    if not find_database(store).is_file():
        raise UsageError(f"{store.home} holds no MLflow database: run `featbench compare` first, or name a --home")
    print(f"MLflow is starting on http://{options.host}:{options.port} (Ctrl-C stops it)", file=sys.stderr)
    server = [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", find_own_uri(store)),
        *("--default-artifact-root", find_artifact_folder(store).as_uri()),
        *("--host", options.host, "--port", str(options.port), "--workers", "1"),
    ]
    # A process of its own, since MLflow's server does not return. Variables that the user set win over our defaults.
    return subprocess.run(server, env={**ENVIRONMENT, **os.environ}, check=False).returncode
