-- One line a capability and measurement. Manifest meta: {base, findings: [GapFinding as JSON:
-- {capability, goal, margin, base: {mean, low, high, n}, gap, gap_low, gap_high, best_prompt,
-- best_prompt_interval: {mean, low, high, n}, prompt_tokens, base_prompt_tokens, verdict, p_value, p_holm,
-- items_to_settle, reason, base_of, best_prompt_of}]}.
CREATE VIEW gaps AS
WITH findings AS (
    SELECT id, created_at, manifest->>'$.meta.base' AS base,
           unnest((manifest->'$.meta.findings')::JSON[]) AS finding
    FROM objects WHERE kind = 'gap'
)
SELECT finding->>'$.capability' AS capability,
       base,
       (finding->>'$.goal')::DOUBLE AS goal,
       (finding->>'$.margin')::DOUBLE AS margin,
       (finding->>'$.base.mean')::DOUBLE AS score,
       (finding->>'$.base.low')::DOUBLE AS low,
       (finding->>'$.base.high')::DOUBLE AS high,
       (finding->>'$.base.n')::BIGINT AS items,
       (finding->>'$.gap')::DOUBLE AS gap,
       (finding->>'$.gap_low')::DOUBLE AS gap_low,
       (finding->>'$.gap_high')::DOUBLE AS gap_high,
       finding->>'$.best_prompt' AS best_prompt,
       (finding->>'$.best_prompt_interval.mean')::DOUBLE AS best_prompt_score,
       (finding->>'$.prompt_tokens')::DOUBLE AS prompt_tokens,
       finding->>'$.verdict' AS verdict,
       (finding->>'$.p_holm')::DOUBLE AS p_holm,
       (finding->>'$.items_to_settle')::DOUBLE::BIGINT AS items_to_settle,
       finding->>'$.reason' AS reason,
       id AS gap_id,
       created_at
FROM findings
ORDER BY created_at, gap_id, capability;
