"""The command line, one subject a module.

A module offers `register(app)`, which adds its commands or its group to the
application; `tollkeeper.cli` calls it.
"""
