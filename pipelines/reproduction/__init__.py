"""How far a recipe's results depend on the seed, and whether this machine reproduces the committed run."""
