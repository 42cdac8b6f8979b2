"""How the simulator answers: words, replies, streams, refusals, misbehaviour."""
