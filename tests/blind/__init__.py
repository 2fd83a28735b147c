"""The blind test of the diagnosis: one cause, or two, put into a real run that the diagnosis then has to name."""
