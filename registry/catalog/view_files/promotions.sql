-- One line a decision of promote. Manifest meta: {base, adapter_id, promoted, reasons, looks, alpha,
-- goals: what stood, moved: [{name, key, stood, now, look, said}], earlier: [{look, adapter_id,
-- promoted, reasons}]}.
CREATE VIEW promotions AS
SELECT id AS promotion_id,
       manifest->>'$.meta.base' AS base,
       manifest->>'$.meta.adapter_id' AS adapter_id,
       (manifest->>'$.meta.promoted')::BOOLEAN AS promoted,
       (manifest->>'$.meta.looks')::DOUBLE::BIGINT AS looks,
       manifest->'$.meta.reasons' AS reasons,
       (manifest->>'$.meta.alpha')::DOUBLE AS alpha,
       manifest->'$.meta.goals' AS goals,
       manifest->'$.meta.moved' AS moved,
       created_at
FROM objects WHERE kind = 'promotion'
ORDER BY created_at, id;
