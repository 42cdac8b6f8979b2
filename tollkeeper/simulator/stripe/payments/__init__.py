"""Objects that move money: intents, charges, refunds, disputes, the balance."""
