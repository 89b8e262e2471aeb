"""Body mesh recovery."""
