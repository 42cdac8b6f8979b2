"""The answers of the simulator: words, replies, streams, refusals, misbehaviour."""
