"""What each screen shows, made from the model by pure functions, and the panes that paint it."""
