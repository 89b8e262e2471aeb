"""Measurements, one script a question; what they found lies in `results/`."""
