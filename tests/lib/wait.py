"""Waiting for a state, never for a time."""

import time


def until(condition, what, timeout=60, pause=0.02):
    """Returns the first true value of condition(); fails the test after timeout seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s for this: {what}")
        time.sleep(pause)
