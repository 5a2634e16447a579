"""Readers of a dead server's disk: nothing there is executed, and nothing is written to it.

``source.opened`` gives a ``Tree`` for a directory, a device or an image; everything else reads through that.
"""
