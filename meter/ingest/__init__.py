"""How observed endings arrive: access-log entries become observations, in batches."""
