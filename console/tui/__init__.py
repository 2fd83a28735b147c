"""The Textual console. Everything that knows textual lives below here, and nothing else imports it."""
