"""What the console does when asked: commands to the run, exports, alarms, navigation."""
