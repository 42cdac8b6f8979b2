-- Tells whether all checks of going live have passed.
SELECT EXISTS (SELECT FROM go_lives WHERE is_live AND passed_at IS NOT NULL)
