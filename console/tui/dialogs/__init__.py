"""Dialogs over a screen: confirmation, lists, palette, help, runs and alarms."""
