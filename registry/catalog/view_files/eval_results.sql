-- One line a scored subject (capability or guard), split, prompt and model. Manifest meta:
-- {subject, split, arm, n, mean, low, high, prompt_tokens_mean, base, adapter_id, scale, rejects}.
CREATE VIEW eval_results AS
SELECT id AS eval_id,
       manifest->>'$.meta.subject' AS subject,
       manifest->>'$.meta.split' AS split,
       manifest->>'$.meta.arm' AS arm,
       manifest->>'$.meta.base' AS base,
       manifest->>'$.meta.adapter_id' AS adapter_id,
       (manifest->>'$.meta.scale')::DOUBLE AS scale,
       (manifest->>'$.meta.n')::BIGINT AS items,
       (manifest->>'$.meta.mean')::DOUBLE AS score,
       (manifest->>'$.meta.low')::DOUBLE AS low,
       (manifest->>'$.meta.high')::DOUBLE AS high,
       (manifest->>'$.meta.prompt_tokens_mean')::DOUBLE AS prompt_tokens,
       created_at
FROM objects WHERE kind = 'eval'
ORDER BY created_at, id;
