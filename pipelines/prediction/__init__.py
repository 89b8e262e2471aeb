"""What the commands of `tcformer` do: predict files, show tokens, describe and convert weights, score results."""
