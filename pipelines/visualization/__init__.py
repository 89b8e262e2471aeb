"""What is drawn of a trained network: its tokens and predictions, and what the token inspector shows."""
