"""Static knowledge: the metrics, backend fixes and objective-side corrections that every part names alike."""
