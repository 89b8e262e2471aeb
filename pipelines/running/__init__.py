"""How stages behave as processes: signals, commands that they start, what a terminal shows, the environment."""
