"""Keypoints of a dataset of the user's own."""
