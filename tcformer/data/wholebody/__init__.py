"""COCO-WholeBody: annotations, crops of people, the 133 keypoints."""
