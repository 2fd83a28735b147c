"""Commands of operators: accepted at once, queued where they take time, with the state of fixes and corrections."""
