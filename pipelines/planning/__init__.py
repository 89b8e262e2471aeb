"""What a recipe needs on a cluster, computed before anything runs: memory, time, checkpoints, failures."""
