"""Pictures of discs."""
