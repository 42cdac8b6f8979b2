-- The models that a listing has for reranking alone, among these.
SELECT id FROM models
WHERE id = ANY ($1::text[]) AND is_listed
  AND listing -> 'architecture' -> 'output_modalities' = '["rerank"]'::jsonb
