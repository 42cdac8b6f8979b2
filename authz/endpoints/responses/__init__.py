"""POST /responses: replies to a conversation of items, in the form of OpenAI's Responses API."""
