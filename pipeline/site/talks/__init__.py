"""Talks that pages have open: which there are, what was said, and what somebody has filled in."""
