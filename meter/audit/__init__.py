"""The audit log: who changed what, in the transaction of each change."""
