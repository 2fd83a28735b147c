"""A recorded run, played again: its frames as they were, in their time or faster, from any step."""
