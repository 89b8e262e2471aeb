"""Measurements: one script per question; `results/` holds the measured figures."""
