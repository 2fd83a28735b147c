"""The hub: one process a run that stamps, journals and publishes every frame and carries commands.

`core` and `commands` are pure state machines (frames in, effects out), `server` gives them sockets, disk and
clock, `auth` decides which keys may connect.
"""
