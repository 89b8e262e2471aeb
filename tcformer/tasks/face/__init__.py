"""Face alignment."""
