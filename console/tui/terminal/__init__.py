"""The terminal itself: driver, hang-up, clipboard, and what is changed inside Textual."""
