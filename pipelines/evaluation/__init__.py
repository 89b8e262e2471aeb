"""What a trained network is measured by: predictions of a test set, tokens, the numbers that DVC compares."""
