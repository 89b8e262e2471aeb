"""WFLW: lists of faces, crops, the 98 landmarks."""
