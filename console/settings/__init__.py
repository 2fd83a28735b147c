"""The operator's configuration file and key map."""
