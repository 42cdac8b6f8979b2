-- Holds with the price they were estimated by, and the cost that settled them, if any did.
SELECT h.id, h.account_id, h.credential_id, h.model_id, h.endpoint, h.price_id, h.markup_bps,
       h.amount_picos, h.flat_cost_picos, h.state, u.provider_cost_picos AS settled_cost_picos,
       p.model_id AS priced_model_id, p.effective_from, p.prompt_picos, p.completion_picos,
       p.request_picos, p.image_picos, p.web_search_picos, p.reasoning_picos,
       p.cache_read_picos, p.cache_write_picos
FROM holds h
JOIN prices p ON p.id = h.price_id
LEFT JOIN usage_records u ON u.hold_id = h.id AND h.state = 'settled'
WHERE h.id = ANY ($1::uuid[])
