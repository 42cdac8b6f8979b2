"""The fault campaign: a whole stack under load and faults, and a checker that believes nobody.

The checker imports nothing of the meter: it has its own SQL, its own reading of the bill, and its
own arithmetic.
"""
