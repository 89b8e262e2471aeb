"""Keypoints of the user's own: the points and their names, COCO keypoint files, .pts files."""
