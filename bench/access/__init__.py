"""How soon what is revoked stops, and how exactly limits hold, on a whole stack with two authz."""
