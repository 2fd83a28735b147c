"""The diagnosis of a mismatch: which cause, how sure, and what to do. No screen and no torch in it; see `model.py`."""
