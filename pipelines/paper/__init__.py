"""The experiments of the paper by name, queued through DVC, and published figures beside ours."""
