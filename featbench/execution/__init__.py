"""Cells run and watched: the runner, its listeners, the mirror in MLflow."""
