"""Numbers that all backends share."""

# Added to every count and every sum of weights before a division by it, as in the authors' released code. Without it,
# the gradient of the importance score's bias, which is the same for all tokens, would be 0.
EPSILON = 1e-6
