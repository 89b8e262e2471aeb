"""How a model is trained, measured and launched: the layer that knows Ray, DeepSpeed and MLflow."""

from pipelines.running.environment import complete_environment

complete_environment()
