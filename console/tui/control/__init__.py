"""Controllers of the console: commands to the run, exports, alarms, navigation."""
