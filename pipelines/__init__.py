"""How a model is trained, measured and launched: the layer that knows Ray, DeepSpeed and MLflow."""
