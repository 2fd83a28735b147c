"""A vLLM server without the plugin as an engine of a run: state by its HTTP pages, acts by those that it offers."""
