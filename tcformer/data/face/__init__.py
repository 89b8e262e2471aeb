"""WFLW: lists of faces, crops, and the 98 landmarks."""
