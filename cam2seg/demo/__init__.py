"""Generated images with true masks, for the demo and for tests.

Nothing that works on a user's own images belongs here.
"""
