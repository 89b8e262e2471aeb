"""Whole-body pose."""
