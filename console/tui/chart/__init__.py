"""Charts: data from the model, the plot, and the window that all charts of a screen share."""
