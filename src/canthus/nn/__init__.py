"""Blocks that two methods share; what one method alone uses lies in its own file."""
