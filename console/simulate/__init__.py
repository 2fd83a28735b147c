"""A synthetic run behind a real hub, labelled as synthetic everywhere."""
