-- Those of these models that a listing has for reranking alone.
SELECT id FROM models
WHERE id = ANY ($1::text[]) AND is_listed
  AND listing -> 'architecture' -> 'output_modalities' = '["rerank"]'::jsonb
