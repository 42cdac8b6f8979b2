"""Files of the books, and the systems that usage is sent to."""
