"""The outside tools, one file each: only `ray.py` imports Ray, only `mlflow.py` imports MLflow, and so on."""
