-- Makes the partitions of this month and of so many to come, where they are missing.
SELECT prepare_months($1)
