"""Ray itself: joining or starting a cluster, calls into actors, and processes that must end with the run."""
