"""A toy task: find the centre and the rim of a disc."""
