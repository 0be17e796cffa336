"""What an MLflow database holds."""


def client_of(path):
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{path}")


def runs_of(path):
    """Return the parent runs in an MLflow database, and the child runs by the name of their cell."""
    client = client_of(path)
    experiments = client.search_experiments(filter_string="name LIKE 'featbench%'")
    runs = client.search_runs([experiment.experiment_id for experiment in experiments], max_results=1000)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    named = {run.info.run_name: run for run in children}
    assert len(named) == len(children)
    return parents, named
