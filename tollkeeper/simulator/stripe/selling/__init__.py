"""Objects that are sold, and the hosted page that sells them."""
