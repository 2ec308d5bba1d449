-- One line an item of every evaluation.
CREATE VIEW eval_samples AS
SELECT result.subject, result.split, result.arm, result.base, result.adapter_id, result.scale,
       sample.row_uid, sample.row_hash, sample.cluster, sample.prompt, sample.expected,
       sample.answer, sample.score, sample.loglikelihoods, sample.prompt_tokens,
       sample.object_id AS eval_id
FROM parquet.stored_samples AS sample
JOIN eval_results AS result ON result.eval_id = sample.object_id;
