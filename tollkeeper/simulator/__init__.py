"""An upstream that behaves like OpenRouter and keeps its own bill.

It stands in for the provider where none can be reached: on a machine without a
provider key, and in tests, where its bill is the second book that ours is compared
with. It shares no code with ours, so that an error in one cannot hide in the other.
"""
