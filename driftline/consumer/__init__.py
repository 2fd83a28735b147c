"""Reading a run and commanding it: the feed of frames, requests to the hub, and renewal of the operator lease."""
