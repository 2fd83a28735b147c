"""From the model to lines that several screens share. Pure."""
