"""The whole system on one machine: real servers, supervised as one command."""
