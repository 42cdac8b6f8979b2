"""Reads Envoy's JSON log file: resumed by inode and offset, leased to one meter."""
