"""The training loop and what it consists of: it runs in every worker and determines the result."""
