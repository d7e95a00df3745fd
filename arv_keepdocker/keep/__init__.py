"""Blocks of Keep: cutting and sending them, knowing which ones are there, and the journal of what was sent."""
